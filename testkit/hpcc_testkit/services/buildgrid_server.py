"""A real BuildGrid on loopback: its CAS and action cache, on disk, run from a separate venv."""

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

BUILDGRID_VERSION: Final = "0.9.1"
INSTANCE: Final = "acme"
_START_SECONDS: Final = 120.0
_PYTHON: Final = (3, 13)
_CONFIG: Final = """\
server: [ !channel {{ address: "127.0.0.1:{port}", insecure-mode: true }} ]
description: hpcc's tests
authorization: {{ method: none }}
monitoring: {{ enabled: false }}
storages: [ !disk-storage &cas {{ path: {directory}/cas }} ]
caches:
  - !lru-action-cache &ac
    storage: *cas
    max-cached-refs: 10000
    allow-updates: true
    cache-failed-actions: false
instances:
  - name: {instance}
    services:
      - !cas {{ storage: *cas }}
      - !bytestream {{ storage: *cas }}
      - !action-cache {{ cache: *ac }}
thread-pool-size: 20
"""


def program() -> Path:
    """Return where `tools/bootstrap.sh buildgrid` puts the program."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "hpcc-tests", f"buildgrid-{BUILDGRID_VERSION}", "bin", "bgd")


def missing_or_none() -> str | None:
    """Return what this machine lacks to run the server, or None."""
    if sys.version_info < _PYTHON:
        return "BuildGrid needs Python 3.13"
    return None if program().is_file() else "no BuildGrid: tools/bootstrap.sh buildgrid"


@dataclass(slots=True)
class BuildGrid:
    """A running server with the instance `INSTANCE`."""

    port: int
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def endpoint(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """Kill the server at once."""
        self.process.kill()
        self.process.wait()


@contextmanager
def buildgrid(directory: Path) -> Iterator[BuildGrid]:
    """Run the server while the block runs."""
    (port,) = free_ports(1)
    config = directory / "bgd.yml"
    config.write_text(_CONFIG.format(port=port, directory=directory, instance=INSTANCE))
    with (directory / "output").open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", str(program()), "server", "start", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        )
    running = BuildGrid(port, process)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _is_up(port):
            is_over = process.poll() is not None or time.monotonic() > deadline
            assert not is_over, (directory / "output").read_text()
            time.sleep(0.1)
        yield running
    finally:
        running.kill()


def _is_up(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
