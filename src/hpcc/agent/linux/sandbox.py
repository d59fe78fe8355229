"""Runs one program in a sandbox and reports how it ended."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import closing
from typing import Final

from hpcc.agent.base.ending import Ending, OnStdio, Reason, StreamName
from hpcc.agent.base.stdio import StdioFullError, StdioPump
from hpcc.agent.linux.ready import ReadySandbox
from hpcc.core import SOURCE_ROOT, ExecRequest

_STREAMS: Final[tuple[StreamName, ...]] = ("stdout", "stderr")
_REPORT_BYTES: Final = 512


class Sandbox:
    """One program in a sandbox. `run` it once; on return no process of it lives."""

    def __init__(self, ready: ReadySandbox, request: ExecRequest, source: str) -> None:
        """Take a sandbox, which this closes, and the tree's path below the directory of all."""
        self._ready, self._request, self._source = ready, request, source

    async def run(self, on_stdio: OnStdio) -> Ending:
        """Run the program to its end, deadline or cancel."""
        ready, request = self._ready, self._request
        with closing(ready):
            cwd = f"{SOURCE_ROOT}/{request.cwd}" if request.cwd else SOURCE_ROOT
            ready.start(self._source, cwd, request.argv, dict(request.env))
            started_at = time.monotonic()
            cause = await self._wait(ready, on_stdio)
            # After a kill a process may still be on its way out.
            if not cause:
                ready.give_back_network()
            # All writers are dead by now.
            line = ready.report.read_now(_REPORT_BYTES)
        if cause:
            return Ending(
                status=-signal.SIGKILL, reason=cause, started_at=started_at,
                wall_seconds=time.monotonic() - started_at,
            )  # fmt: skip
        return _ending(line, is_out_of_memory=ready.cgroup.was_out_of_memory())

    async def _wait(self, ready: ReadySandbox, on_stdio: OnStdio) -> Reason:
        cause: Reason = ""
        child, cgroup = ready.helper, ready.cgroup
        stdio = StdioPump(self._request.limits.stdio_bytes, on_stdio)
        try:
            deadline = asyncio.timeout(self._request.limits.wall_seconds)
            async with deadline, asyncio.TaskGroup() as group:
                for name, pipe in zip(_STREAMS, (ready.stdout, ready.stderr), strict=True):
                    group.create_task(stdio.pump(name, pipe))
                await child.wait()
                # No process should hold the pipes open any more; this makes sure.
                cgroup.kill()
        except* TimeoutError:
            cause = "deadline"
        except* StdioFullError:
            cause = "stdio-limit"
        finally:
            # The helper first: it is not in a group of version 2, and could still fork into it.
            child.kill()
            cgroup.kill()
            await child.wait()
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
