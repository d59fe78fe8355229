"""A real third-party REAPI service: `buildbox-casd` on loopback, with or without execution.

`missing_or_none` returns the reason to skip; `casd` runs the service.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc_testkit.services.s3_servers import free_ports

BUILDBOX_VERSION: Final = "1.4.25"
_START_SECONDS: Final = 60.0
_ATTEMPTS: Final = 3


def casd_path() -> Path:
    """Return where `tools/bootstrap.sh buildbox` puts the program."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "hpcc-tests", f"buildbox-{BUILDBOX_VERSION}", "buildbox-casd")


def missing_or_none() -> str | None:
    """Return what this machine lacks to run the service, or None."""
    return None if casd_path().is_file() else "no buildbox-casd: tools/bootstrap.sh buildbox"


@dataclass(slots=True)
class Casd:
    """A running service; its one instance has no name."""

    port: int
    directory: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def endpoint(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """Kill the service at once."""
        self.process.kill()
        self.process.wait()


@contextmanager
def casd(directory: Path, *, executes: bool = False) -> Iterator[Casd]:
    """Run the service while the block runs; with `executes` it runs actions on this machine."""
    directory.mkdir(parents=True, exist_ok=True)
    for attempt in range(_ATTEMPTS):
        (port,) = free_ports(1)
        argv = ["setpriv", "--pdeathsig", "KILL", str(casd_path()), f"--bind=127.0.0.1:{port}"]
        if executes:
            argv += [f"--buildbox-run={_runner(directory)}", "--jobs=2"]
        with (directory / "output").open("ab") as output:
            process = subprocess.Popen(
                [*argv, str(directory / "cas")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                env={"PATH": os.environ["PATH"], "HOME": str(directory)},
            )
        service = Casd(port, directory, process)
        try:
            if _is_up(service):
                yield service
                return
            assert attempt < _ATTEMPTS - 1, (directory / "output").read_text()
        finally:
            service.kill()


def _runner(directory: Path) -> Path:
    """Write the program that casd starts for each action."""
    runner = directory / "runner"
    source = Path(__file__).with_name("buildbox_runner.py")
    paths = os.pathsep.join(p for p in sys.path if p)
    runner.write_text(
        f"#!/bin/sh\nPYTHONPATH='{paths}' exec '{sys.executable}' '{source}' \"$@\"\n"
    )
    runner.chmod(0o755)
    return runner


def _is_up(service: Casd) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and service.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", service.port), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
