"""One service as a child process that reports in JSON lines and ends with its parent.

The contract with the service: standard input is a pipe that never carries a byte, and its end
means that the parent is gone and the service must exit. Standard output carries one JSON object
per line: `{"progress": "…"}`, and once `{"ready": true, …}`. SIGTERM requests an orderly end; on
Windows, which has no such signal, the end of standard input does.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError

MAX_LINE_BYTES: Final = 64 << 10
STOP_SECONDS: Final = 20.0
# CREATE_NO_WINDOW ("Process Creation Flags"): the supervisor has no console to share.
_CREATION_FLAGS: Final = 0x0800_0000 if sys.platform == "win32" else 0


class SupervisorError(InfrastructureError):
    """A service did not become ready, or ended too often and was given up."""

    default_reason = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """How to start a service. `env` is the complete environment. `log` gets its standard error."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    ready_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The fields of a service's `ready` line. Values are decoded JSON; the user checks them."""

    name: str
    facts: Mapping[str, object]


class Child:
    """A running service. One task owns it and must `stop` it."""

    def __init__(self, spec: ChildSpec, process: asyncio.subprocess.Process) -> None:
        self.spec, self.process = spec, process

    @classmethod
    async def start(cls, spec: ChildSpec) -> Child:
        """Start the process.

        Raises:
            SupervisorError: the program cannot be started, or its log cannot be opened.
        """
        try:
            with spec.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *spec.argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    env=dict(spec.env),
                    limit=MAX_LINE_BYTES,
                    start_new_session=sys.platform != "win32",
                    creationflags=_CREATION_FLAGS,
                )
        except OSError as error:
            raise SupervisorError(f"cannot start {spec.name}: {error}") from error
        return cls(spec, process)

    async def wait_ready(self, progress: Callable[[str], None]) -> Ready:
        """Read the service's lines until it is ready.

        Raises:
            SupervisorError: it ended, wrote something else than JSON lines, or was not ready
                within `ready_seconds`.
        """
        try:
            async with asyncio.timeout(self.spec.ready_seconds):
                while True:
                    facts = await self._line()
                    if facts.get("ready") is True:
                        return Ready(self.spec.name, facts)
                    if isinstance(facts.get("progress"), str):
                        progress(str(facts["progress"])[:500])
        except TimeoutError as error:
            raise SupervisorError(
                f"{self.spec.name} was not ready within {self.spec.ready_seconds:.0f} s; "
                f"its log: {self.spec.log}"
            ) from error

    async def _line(self) -> Mapping[str, object]:
        assert self.process.stdout is not None
        try:
            raw = await self.process.stdout.readline()
            value = json.loads(raw) if raw else None
        except (ValueError, RecursionError) as error:
            raise SupervisorError(f"{self.spec.name} does not speak JSON lines") from error
        if value is None:
            code = await self.process.wait()
            raise SupervisorError(
                f"{self.spec.name} ended with status {code}: {last_line(self.spec.log)}"
            )
        return value if isinstance(value, dict) else {}

    async def drain(self) -> int:
        """Read and discard its further output; return its status when it ends."""
        assert self.process.stdout is not None
        while await self.process.stdout.read(MAX_LINE_BYTES):
            pass
        return await self.process.wait()

    async def stop(self) -> None:
        """Ask the process to end, and kill it after `STOP_SECONDS`. Idempotent."""
        if self.process.returncode is not None:
            return
        if sys.platform == "win32":
            assert self.process.stdin is not None
            self.process.stdin.close()
        else:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


def last_line(log: Path) -> str:
    """Return the last non-empty line of a log, cut for a message; or where the log is."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return f"see {log}"
    text = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{text[:300]} (log: {log})" if text else f"see {log}"
