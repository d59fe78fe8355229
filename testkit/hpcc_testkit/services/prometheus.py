"""A real Prometheus on loopback, and promtool. Debian's package, unpacked and not installed.

`missing_or_none` returns the reason to skip; `prometheus` runs a server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from hpcc_testkit.services.s3_servers import free_ports
from hpcc_testkit.services.scraped import fetch

_START_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1
# A port that the kernel named may be taken before the server binds it.
_ATTEMPTS: Final = 4


def program_or_none(name: str) -> str | None:
    """Return `prometheus` or `promtool`: an installed one, or what `tools/bootstrap.sh` fetched."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    fetched = Path(base, "hpcc-tests", "prometheus", name)
    return str(fetched) if fetched.is_file() else shutil.which(name)


def missing_or_none() -> str | None:
    """Return what this machine lacks to run Prometheus, or None."""
    found = program_or_none("prometheus") and program_or_none("promtool")
    return None if found else "no Prometheus: tools/bootstrap.sh prometheus"


def promtool(*argv: str, data: bytes = b"") -> None:
    """Run promtool; what it refuses is an `AssertionError` with its words."""
    program = program_or_none("promtool")
    assert program, missing_or_none()
    done = subprocess.run(
        [program, *argv], input=data, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    address: str

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401 - JSON
        """Ask the API; return `data` of its answer. An error is an `AssertionError`."""
        _, body = fetch(self.address, f"/api/v1/{path}?{urlencode(query)}")
        answer = json.loads(body)
        assert answer["status"] == "success", (query, answer)
        return answer["data"]

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """Return the series of an expression now, with their values."""
        found = self.get("query", query=expression)
        assert found["resultType"] == "vector", expression
        return [(row["metric"], float(row["value"][1])) for row in found["result"]]


@contextmanager
def prometheus(directory: Path, config: Mapping[str, object]) -> Iterator[Prometheus]:
    """Run a server with this configuration until the block ends."""
    program = program_or_none("prometheus")
    assert program, missing_or_none()
    file = directory / "prometheus.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    log = directory / "prometheus.log"
    for _ in range(_ATTEMPTS):
        address = f"127.0.0.1:{free_ports(1)[0]}"
        argv = [
            program, f"--config.file={file}", f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address={address}", "--log.level=warn",
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(argv, cwd=directory, stdout=output, stderr=output)
        try:
            if _is_ready(address, process):
                yield Prometheus(address)
                return
        finally:
            process.kill()
            process.wait()
    raise AssertionError(log.read_text()[-2000:])


def _is_ready(address: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server is ready; return False if it ended."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            status, _ = fetch(address, "/-/ready")
        except OSError:
            status = 0
        if status == HTTPStatus.OK:
            return True
        time.sleep(_POLL_SECONDS)
    return False
