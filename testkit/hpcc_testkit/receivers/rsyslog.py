"""A real rsyslog on loopback, over TLS. Debian's package, unpacked and not installed.

`missing_or_none` returns the reason to skip; `rsyslog` runs a daemon. It parses messages by RFC
5424 with its own parsers, also the structured data, and writes what it understood as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc_testkit.services.server_certificate import ServerFiles

_HANG_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02
# Name in a line, and rsyslog's name of the property.
_PROPERTIES: Final = {
    "priority": "pri", "host": "hostname", "app": "app-name", "process": "procid", "id": "msgid",
    "text": "msg", "data": "$!rfc5424-sd", "from": "fromhost-ip",
}  # fmt: skip


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "hpcc-tests", "rsyslog")


def missing_or_none() -> str | None:
    """Return what this machine lacks to run rsyslog, or None."""
    return None if (_folder() / "rsyslogd").is_file() else "no rsyslog: tools/bootstrap.sh rsyslog"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """A message as rsyslog understood it. `data` is by element and parameter."""

    at: str
    priority: str
    host: str
    app: str
    process: str
    message_id: str
    text: str
    data: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Rsyslog:
    """A running daemon."""

    port: int
    output: Path

    async def wait_received(self, count: int) -> list[ReceivedMessage]:
        """Return the first messages; wait until there are `count`."""
        async with asyncio.timeout(_HANG_SECONDS):
            while len(lines := self._lines()) < count:  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(_POLL_SECONDS)
        return [_message(line) for line in lines]

    def _lines(self) -> list[str]:
        """Return the whole lines that were written."""
        text = self.output.read_text() if self.output.exists() else ""
        return text.split("\n")[:-1]


def _message(line: str) -> ReceivedMessage:
    found = json.loads(line)
    return ReceivedMessage(
        at=found["at"], priority=found["priority"], host=found["host"], app=found["app"],
        process=found["process"], message_id=found["id"], text=found["text"],
        data=json.loads(found["data"]),
    )  # fmt: skip


@contextmanager
def rsyslog(directory: Path, files: ServerFiles, *, client: str = "") -> Iterator[Rsyslog]:
    """Run a daemon until the block ends; `client` is the name that a client's certificate has."""
    folder = _folder()
    assert not missing_or_none(), missing_or_none()
    port, output, log = directory / "port", directory / "received.jsonl", directory / "rsyslog.log"
    config = directory / "rsyslog.conf"
    config.write_text(_config(directory, files, port, output, client))
    argv = [
        str(folder / "rsyslogd"), "-n", "-f", str(config), "-M", str(folder),
        "-i", str(directory / "pid"),
    ]  # fmt: skip
    with log.open("wb") as errors:
        process = subprocess.Popen(
            argv, env={"LD_LIBRARY_PATH": str(folder)}, stdout=errors, stderr=errors
        )
    try:
        yield Rsyslog(_wait_port(process, port, log), output)
    finally:
        process.kill()
        process.wait()


def _wait_port(process: subprocess.Popen[bytes], port: Path, log: Path) -> int:
    deadline = time.monotonic() + _HANG_SECONDS
    while not (text := port.read_text().strip() if port.exists() else ""):
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(_POLL_SECONDS)
    return int(text)


def _config(directory: Path, files: ServerFiles, port: Path, output: Path, client: str) -> str:
    """Return the configuration, with OpenSSL as the TLS library."""
    mode = f'"x509/name" permittedPeer=["{client}"]' if client else '"anon"'
    properties = "\n".join(
        f'property(outname="{name}" name="{known}" format="jsonf")'
        for name, known in _PROPERTIES.items()
    )
    return f"""
global(workDirectory="{directory}" maxMessageSize="8k"
  defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{files.ca}"
  defaultNetstreamDriverCertFile="{files.certificate}"
  defaultNetstreamDriverKeyFile="{files.key}")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode={mode})
module(load="mmpstrucdata")
template(name="all" type="list" option.jsonf="on") {{
{properties}
property(outname="at" name="timereported" dateFormat="rfc3339" format="jsonf")
}}
ruleset(name="events") {{
  action(type="mmpstrucdata")
  action(type="omfile" file="{output}" template="all")
}}
input(type="imtcp" port="0" address="127.0.0.1" listenPortFileName="{port}" ruleset="events")
"""
