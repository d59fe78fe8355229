"""Runs one program through `hpcc-init exec` and reports how it ended."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from hpcc.agent.base.ending import Ending, OnStdio, Reason, StreamName
from hpcc.agent.base.stdio import StdioFullError, StdioPump
from hpcc.agent.linux.cgroup import Cgroup
from hpcc.agent.linux.networks import Networks
from hpcc.agent.linux.program import OutputPipe, Program
from hpcc.core import SOURCE_ROOT, ExecRequest

_STREAMS: Final[tuple[StreamName, ...]] = ("stdout", "stderr")
_REPORT_BYTES: Final = 512
_FIRST_UID: Final = 10_000
# As many as a container's range of ids has room for; a guest that runs more starts again.
_UIDS: Final = 250_000


def uid_of(number: int) -> int:
    """Return the uid of a guest's exec, which no other exec that may still exist has."""
    return _FIRST_UID + number % _UIDS


class Sandbox:
    """One program in separate namespaces. `run` it once; on return no process of it lives."""

    def __init__(
        self, helper: str, request: ExecRequest, number: int, source: str, networks: Networks
    ) -> None:
        self._helper, self._request = helper, request
        self._number, self._source, self._networks = number, source, networks

    async def run(self, cgroup: Cgroup, on_stdio: OnStdio) -> Ending:
        """Run the program to its end, deadline or cancel."""
        with (
            closing(OutputPipe()) as stdout,
            closing(OutputPipe()) as stderr,
            closing(OutputPipe()) as report,
        ):
            network = self._networks.take()
            is_over = False
            try:
                child = self._start(cgroup, (stdout, stderr, report), network)
                started_at = time.monotonic()
                cause = await self._wait(child, cgroup, (stdout, stderr), on_stdio)
                is_over = not cause
            finally:
                # After a kill a process may still be on its way out.
                if is_over:
                    self._networks.give_back(network)
                else:
                    os.close(network)
            # All writers are dead by now.
            line = report.read_now(_REPORT_BYTES)
        if cause:
            return Ending(
                status=-signal.SIGKILL, reason=cause, started_at=started_at,
                wall_seconds=time.monotonic() - started_at,
            )  # fmt: skip
        return _ending(line, is_out_of_memory=cgroup.was_out_of_memory())

    def _start(self, cgroup: Cgroup, pipes: Sequence[OutputPipe], network: int) -> Program:
        limits, cwd = self._request.limits, self._request.cwd
        child = Program(
            (
                self._helper, "exec", cgroup.procs_paths,
                str(uid_of(self._number)), str(limits.output_bytes), str(limits.pids),
                str(limits.memory_bytes), self._source,
                f"{SOURCE_ROOT}/{cwd}" if cwd else SOURCE_ROOT, "--",
                *self._request.argv,
            ),
            dict(self._request.env),
            # After the program's streams, in the order that the helper expects.
            [*(pipe.write_fd for pipe in pipes), network],
        )  # fmt: skip
        for pipe in pipes:
            pipe.close_write_end()
        return child

    async def _wait(
        self,
        child: Program,
        cgroup: Cgroup,
        pipes: tuple[OutputPipe, OutputPipe],
        on_stdio: OnStdio,
    ) -> Reason:
        cause: Reason = ""
        stdio = StdioPump(self._request.limits.stdio_bytes, on_stdio)
        try:
            deadline = asyncio.timeout(self._request.limits.wall_seconds)
            async with deadline, asyncio.TaskGroup() as group:
                for name, pipe in zip(_STREAMS, pipes, strict=True):
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
