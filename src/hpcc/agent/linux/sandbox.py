"""Runs one program through `hpcc-init exec` and reports how it ended."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from typing import Final

from hpcc.agent.base.ending import Ending, OnStdio, Reason
from hpcc.agent.base.stdio import StdioFullError, StdioPump, drain
from hpcc.agent.linux.cgroup import Cgroup
from hpcc.core import SOURCE_ROOT, ExecRequest

_REPORT_BYTES: Final = 512
_FIRST_UID: Final = 10_000
# As many as a container's range of ids has room for; a guest that runs more starts again.
_UIDS: Final = 250_000


def uid_of(number: int) -> int:
    """Return the uid of a guest's exec, which no other exec that may still exist has."""
    return _FIRST_UID + number % _UIDS


class Sandbox:
    """One program in separate namespaces. `run` it once; on return no process of it lives."""

    def __init__(self, helper: str, request: ExecRequest, number: int, source: str) -> None:
        self._helper, self._request = helper, request
        self._number, self._source = number, source

    async def run(self, cgroup: Cgroup, on_stdio: OnStdio) -> Ending:
        """Run the program to its end, deadline or cancel."""
        report_read, report_write = os.pipe()
        try:
            try:
                process = await self._start(cgroup, report_write)
            finally:
                os.close(report_write)
            started_at = time.monotonic()
            cause = await self._wait(process, cgroup, on_stdio)
            # All writers are dead by now, so this does not block.
            report = os.read(report_read, _REPORT_BYTES)
        finally:
            os.close(report_read)
        if cause:
            return Ending(
                status=-signal.SIGKILL, reason=cause, started_at=started_at,
                wall_seconds=time.monotonic() - started_at,
            )  # fmt: skip
        return _ending(report, is_out_of_memory=cgroup.was_out_of_memory())

    async def _start(self, cgroup: Cgroup, report_fd: int) -> asyncio.subprocess.Process:
        limits, cwd = self._request.limits, self._request.cwd
        return await asyncio.create_subprocess_exec(
            self._helper, "exec", str(report_fd), cgroup.procs_paths, str(uid_of(self._number)),
            str(limits.output_bytes), str(limits.pids), str(limits.memory_bytes), self._source,
            f"{SOURCE_ROOT}/{cwd}" if cwd else SOURCE_ROOT, "--", *self._request.argv,
            env=dict(self._request.env), pass_fds=(report_fd,), cwd="/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def _wait(
        self, process: asyncio.subprocess.Process, cgroup: Cgroup, on_stdio: OnStdio
    ) -> Reason:
        assert process.stdout is not None
        assert process.stderr is not None
        cause: Reason = ""
        stdio = StdioPump(self._request.limits.stdio_bytes, on_stdio)
        try:
            deadline = asyncio.timeout(self._request.limits.wall_seconds)
            async with deadline, asyncio.TaskGroup() as group:
                group.create_task(stdio.pump("stdout", process.stdout))
                group.create_task(stdio.pump("stderr", process.stderr))
                await process.wait()
                # No process should hold the pipes open any more; this makes sure.
                cgroup.kill()
        except* TimeoutError:
            cause = "deadline"
        except* StdioFullError:
            cause = "stdio-limit"
        finally:
            # The helper first: it is not in a group of version 2, and could still fork into it.
            with suppress(ProcessLookupError):
                process.kill()
            cgroup.kill()
            # asyncio's wait() also waits for the pipes.
            await drain(process.stdout, process.stderr)
            await process.wait()
        return cause


def _ending(report: bytes, *, is_out_of_memory: bool) -> Ending:
    """Parse the helper's line; see sandbox() in init.c. The program cannot reach that pipe."""
    words = report.split(b"\n", 1)[0].decode("utf-8", "replace").split(" ", 5)
    match words:
        case _ if is_out_of_memory:
            return Ending(status=-signal.SIGKILL, reason="memory")
        case ["done", status, user_us, system_us, rss_kib, start_us]:
            started_at = int(start_us) / 1e6
            code = os.waitstatus_to_exitcode(int(status))
            return Ending(
                status=code,
                reason="output-limit" if code == -signal.SIGXFSZ else "",
                wall_seconds=max(time.monotonic() - started_at, 0.0),
                user_seconds=int(user_us) / 1e6,
                system_seconds=int(system_us) / 1e6,
                max_rss_bytes=int(rss_kib) << 10,
                started_at=started_at,
            )
        case ["exec", number, *_]:
            return Ending(status=127, reason="no-such-program", detail=os.strerror(int(number)))
        case ["stage", number, *what]:
            detail = f"{' '.join(what)}: {os.strerror(int(number))}"
            return Ending(status=125, reason="agent-error", detail=detail)
        case _:
            return Ending(status=125, reason="agent-error", detail="the sandbox died unreported")
