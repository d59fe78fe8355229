"""The agent's machine on Windows: one exec at a time in `C:/src`, each in a job.

One at a time, because cl writes the absolute path of the object into it: separate directories for
execs would make equal compiles unequal. The tests run it under Wine; not yet tested on Windows.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.base.ending import Ending, OnStdio, Output
from hpcc.agent.base.intake import FirstExecHeader
from hpcc.agent.windows.job import WindowsJob
from hpcc.agent.windows.program import NoProgramError, check_request, environment, find_program
from hpcc.agent.windows.tree import (
    clear,
    list_directories,
    open_listed,
    open_outputs,
    stage,
    verbatim,
)
from hpcc.core import ExecRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsAgentConfig:
    r"""The agent's directories and the limits of execs.

    Sources and outputs are in `source`, `C:\src` wherever there is a choice; `scratch` is the
    program's directory for temporary files. All are on one volume. `make_shared` makes a directory
    that a program without rights may write to, `make_private` one that it cannot enter.
    `variables` are the agent's own.
    """

    stub: Sequence[str]
    variables: Mapping[str, str]
    make_shared: Callable[[str], None]
    make_private: Callable[[str], None]
    directory: str = "C:\\.hpcc-work"
    source: str = "C:\\src"
    scratch: str = "C:\\out"
    blob_budget_bytes: int
    max_memory_bytes: int
    max_pids: int


class WindowsMachine:
    """`Machine` on Windows (`hpcc.agent.base.machine`). Runs one exec at a time; others wait."""

    def __init__(self, config: WindowsAgentConfig) -> None:
        self._config = config
        self.directory = config.directory
        self.blob_budget_bytes = config.blob_budget_bytes
        self._turn = asyncio.Lock()

    def prepare(self) -> None:
        self._config.make_private(self.directory)

    def take_first_exec(self, first_exec: FirstExecHeader) -> None:
        """Do nothing: a container may not set the clock, and Windows takes no entropy from us."""
        del first_exec

    @asynccontextmanager
    async def workplace(self, request: ExecRequest, number: int) -> AsyncIterator[_Workplace]:
        del number  # all execs use the same place, one after another
        async with self._turn:
            place = _Workplace(self._config, self._limited(request))
            try:
                await place.empty()
                yield place
            finally:
                await place.empty()

    def _limited(self, request: ExecRequest) -> ExecRequest:
        limits = request.limits
        return replace(
            request,
            limits=replace(
                limits,
                memory_bytes=min(limits.memory_bytes, self._config.max_memory_bytes),
                pids=min(limits.pids, self._config.max_pids),
            ),
        )

    def say_memory(self, execs: int) -> None:
        sys.stderr.write(f"hpcc-agent: execs {execs}\n")


class _Workplace:
    def __init__(self, config: WindowsAgentConfig, request: ExecRequest) -> None:
        self._config, self._request = config, request
        self._source = verbatim(config.source)

    async def empty(self) -> None:
        """Remove what a compile left.

        Raises:
            OSError: something remains. The guest must be given up.
        """
        graveyard = verbatim(self._config.directory)
        await clear(self._source, graveyard)
        await clear(verbatim(self._config.scratch), graveyard)

    async def stage(self, blobs: BlobCache) -> None:
        chosen = check_request(self._request, self._config.source)
        for directory in (self._config.source, self._config.scratch):
            self._config.make_shared(directory)
        await stage(self._source, self._request, blobs, chosen)

    async def run(self, on_stdio: OnStdio) -> Ending:
        config, request = self._config, self._request
        tail = request.cwd.replace("/", os.sep)
        cwd = os.path.join(config.source, tail) if tail else config.source
        try:
            variables = environment(
                request, config.variables, endpoint=uuid.uuid4().hex, temporary=config.scratch
            )
            program = find_program(request.argv[0], variables, cwd, os.path.isfile)
        except NoProgramError as error:
            return Ending(status=127, reason="no-such-program", detail=str(error))
        except OSError as error:
            return Ending(status=125, reason="agent-error", detail=f"variables: {error}")
        job = WindowsJob(
            stub=config.stub, request=request, program=program, variables=variables, cwd=cwd,
            report=os.path.join(config.directory, f"report-{secrets.token_hex(16)}"),
        )  # fmt: skip
        return await job.run(on_stdio)

    def outputs(self) -> list[Output]:
        files = open_outputs(self._source, self._request.outputs)
        try:
            return [*files, *list_directories(self._source, self._request.output_directories)]
        except BaseException:
            for file in files:
                os.close(file.fd)
            raise

    def open_listed(self, output: Output) -> int:
        return open_listed(self._source, output)
