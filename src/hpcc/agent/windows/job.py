"""Runs one program to its end through `hpcc-agent.exe run`, in a separate job."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hpcc.agent.base.ending import Ending, OnStdio, Reason
from hpcc.agent.base.stdio import StdioFullError, StdioPump, drain
from hpcc.agent.windows.program import EXIT_DEADLINE, check_line, read_report, stub_arguments
from hpcc.core import ExecRequest

_MAX_REPORT_BYTES: Final = 200
# The stub enforces the deadline; this is for a stub that fails to.
_LATE_SECONDS: Final = 10.0
# How long Windows may take to end the processes of a closed job.
_END_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsJob:
    """One program with its path and variables; `stub` starts the process that keeps its job.

    `report` names a file that does not exist, in a directory that the program cannot reach.
    """

    stub: Sequence[str]
    request: ExecRequest
    program: str
    variables: Mapping[str, str]
    cwd: str
    report: str

    async def run(self, on_stdio: OnStdio) -> Ending:
        """Run it to its end, deadline or cancel. The job ends with the process that keeps it.

        Raises:
            OSError: a process did not end. The guest must be given up.
        """
        arguments = stub_arguments(self.request, self.program, self.report)
        argv = [*self.stub, *arguments]
        try:
            check_line(argv, subprocess.list2cmdline(argv))
            process = await asyncio.create_subprocess_exec(
                *argv, env=dict(self.variables), cwd=self.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            return Ending(status=125, reason="agent-error", detail=f"start: {error}")
        started_at = time.monotonic()
        cause = await self._wait(process, on_stdio)
        wall_seconds = time.monotonic() - started_at
        if cause:
            return Ending(
                status=EXIT_DEADLINE, reason=cause, started_at=started_at, wall_seconds=wall_seconds
            )
        return read_report(self._report(), wall_seconds=wall_seconds, started_at=started_at)

    async def _wait(self, process: asyncio.subprocess.Process, on_stdio: OnStdio) -> Reason:
        assert process.stdout is not None
        assert process.stderr is not None
        cause: Reason = ""
        stdio = StdioPump(self.request.limits.stdio_bytes, on_stdio)
        try:
            deadline = asyncio.timeout(self.request.limits.wall_seconds + _LATE_SECONDS)
            async with deadline, asyncio.TaskGroup() as group:
                group.create_task(stdio.pump("stdout", process.stdout))
                group.create_task(stdio.pump("stderr", process.stderr))
        except* TimeoutError:
            cause = "deadline"
        except* StdioFullError:
            cause = "stdio-limit"
        finally:
            # The stub's end closes the job's last handle, and Windows ends all processes in it. If
            # the pipes ended by themselves, the stub is about to write its report.
            if not process.stdout.at_eof() or not process.stderr.at_eof():
                with suppress(ProcessLookupError):
                    process.kill()
            await self._end(process)
        return cause

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(_END_SECONDS):
                await drain(process.stdout, process.stderr)
                await process.wait()
        except TimeoutError as error:
            # A process that still has the pipes open is not in our job.
            process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
            raise OSError("a program outlived its job") from error

    def _report(self) -> bytes:
        try:
            with open(self.report, "rb") as file:
                return file.read(_MAX_REPORT_BYTES)
        except OSError:
            return b""
        finally:
            with suppress(OSError):
                os.unlink(self.report)
