"""A real OpenTelemetry collector on loopback: rotel, by its authors' wheel, unpacked.

It decodes with another implementation of protobuf and OTLP than OpenTelemetry's Python messages,
and sends what it understood to another collector. `missing_or_none` returns the reason to skip.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpcc_testkit.services.s3_servers import free_ports

_START_SECONDS: Final = 60.0


def _program() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "hpcc-tests", "rotel-0.0.1a15", "rotel-agent")


def missing_or_none() -> str | None:
    """Return what this machine lacks to run rotel, or None."""
    return None if _program().is_file() else "no rotel: tools/bootstrap.sh rotel"


@contextmanager
def rotel(directory: Path, target: int) -> Iterator[int]:
    """Run it while the block runs; yield its port. What it takes goes to `target` over HTTP."""
    port, rpc = free_ports(2)
    output = directory / "rotel.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [
                _program(), "start", "--pid-file", directory / "rotel.pid",
                "--otlp-http-endpoint", f"127.0.0.1:{port}",
                "--otlp-grpc-endpoint", f"127.0.0.1:{rpc}",
                "--disable-batching", "--exporter", "otlp",
                "--otlp-exporter-endpoint", f"http://127.0.0.1:{target}",
                "--otlp-exporter-protocol", "http",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                is_over = process.poll() is not None or time.monotonic() > deadline
                assert not is_over, output.read_text()[-4000:]
                time.sleep(0.05)
            else:
                break
        yield port
    finally:
        process.terminate()
        process.wait(_START_SECONDS)
