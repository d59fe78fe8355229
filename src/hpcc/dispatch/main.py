"""The dispatcher process: `python -m hpcc.dispatch.main FARM_FILE TIMEOUT PARITY FD`.

It reads frames of `remote_frames` from the inherited socket and ends when the other end closes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

from hpcc import __version__
from hpcc.config.farm import Farm, load_farm_or_none
from hpcc.config.paths import FARM_SESSION_NAME
from hpcc.core import (
    PARITIES,
    SHARINGS,
    CallerError,
    HpccError,
    Parity,
    RemoteFailure,
    RemoteOutcome,
    RemoteRequest,
    RunHere,
    Sharing,
    demanded,
)
from hpcc.core.build_summary import NO_REPORTS, summary_of_table
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.engine import EngineConnection, connect_engine
from hpcc.dispatch.farm import FarmConnection, connect_farm
from hpcc.dispatch.remote_frames import (
    LENGTH,
    MAX_FRAME_BYTES,
    Frame,
    FrameKind,
    decode_frame,
    encode_frame,
    encode_outcome,
    request_of,
)
from hpcc.obs.logs import ServiceLog
from hpcc.ports import Clock, SystemClock

_log: Final = logging.getLogger(__name__)
_REPORT_SECONDS: Final = 20.0
_NO_FARM: Final = RemoteFailure(FallbackReason.NO_FARM, "there is no farm any more")


class Farms:
    """The connection that belongs to the current farm.json. Older ones close with the process."""

    def __init__(
        self, path: Path, stack: AsyncExitStack, clock: Clock, timeout_seconds: float
    ) -> None:
        self._path, self._stack, self._clock = path, stack, clock
        self._timeout_seconds = timeout_seconds
        self._stat: tuple[int, ...] = ()
        self._current: FarmConnection | EngineConnection | None = None
        self._lock = asyncio.Lock()

    async def current(self) -> FarmConnection | EngineConnection | None:
        """Return the connection, opened again if farm.json has changed; None without a farm."""
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        stat = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        # A build begins with several compiles at once: one connects, and the others wait for it.
        async with self._lock:
            current = self._current
            has_news = isinstance(current, FarmConnection) and current.has_news()
            if stat != self._stat or has_news:
                farm = load_farm_or_none(self._path)
                self._current = await self._connect(farm) if farm else None
                self._stat = stat
            return self._current

    async def _connect(self, farm: Farm) -> FarmConnection | EngineConnection:
        if farm.engine:
            engine = connect_engine(farm, timeout_seconds=self._timeout_seconds)
            return await self._stack.enter_async_context(engine)
        session_file = self._path.with_name(FARM_SESSION_NAME)
        return await self._stack.enter_async_context(
            connect_farm(farm, self._clock, __version__, session_file=session_file)
        )


async def compile_on(
    farms: Farms, dispatcher: Dispatcher, read_request: Callable[[], RemoteRequest]
) -> RemoteOutcome:
    """Compile on the current farm; every failure is a value, only a cancel is raised."""
    try:
        connection = await farms.current()
        if connection is None:
            return _NO_FARM
        return await dispatcher.compile(connection, read_request())
    except HpccError as error:
        return RemoteFailure(error.reason, str(error))
    except Exception:  # noqa: BLE001 - the root of a task: one compile's fault must not end the others
        _log.exception("a remote compile failed")
        return RemoteFailure(
            FallbackReason.DISPATCHER_ERROR, "the dispatcher failed: see the daemon's log"
        )


async def report_to(farms: Farms, head: Mapping[str, Any]) -> str:
    """Tell the current farm of a build; return why it was not taken, "" if it was."""
    try:
        connection = await farms.current()
        if not isinstance(connection, FarmConnection):
            return NO_REPORTS  # an engine, or no farm any more
        async with asyncio.timeout(_REPORT_SECONDS):
            await connection.report_build(summary_of_table(head))
    except HpccError as error:
        return error.reason
    except TimeoutError:
        return "deadline"
    except Exception:  # noqa: BLE001 - as for a compile
        _log.exception("a report of a build failed")
        return "internal-error"
    return ""


class _Process:
    """Reads requests, runs each as a task, and writes outcomes."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        farms: Farms,
        dispatcher: Dispatcher,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._farms, self._dispatcher = farms, dispatcher
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # Compiles that were sent to this machine, until the daemon reports their end.
        self._here: dict[int, RunHere] = {}
        self._write_lock = asyncio.Lock()

    async def run(self) -> None:
        """Serve until the daemon closes its end, then cancel running compiles."""
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
                    if length > MAX_FRAME_BYTES:
                        raise CallerError("frame is too large", reason="frame")
                    frame = decode_frame(await self._reader.readexactly(length))
                    if frame.kind is FrameKind.COMPILE:
                        task = group.create_task(self._compile(frame))
                        self._tasks[frame.request_id] = task
                        continue
                    if frame.kind is FrameKind.REPORT:
                        self._tasks[frame.request_id] = group.create_task(self._report(frame))
                        continue
                    if here := self._here.pop(frame.request_id, None):
                        here.end(frame.head.get("is_compiled") is True)
                    if running := self._tasks.get(frame.request_id):
                        running.cancel()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                for task in self._tasks.values():
                    task.cancel()

    async def _compile(self, frame: Frame) -> None:
        try:
            outcome = await compile_on(self._farms, self._dispatcher, lambda: request_of(frame))
            if isinstance(outcome, RunHere):
                self._here[frame.request_id] = outcome
            await self._send(encode_outcome(frame.request_id, outcome))
        finally:
            self._tasks.pop(frame.request_id, None)

    async def _report(self, frame: Frame) -> None:
        try:
            reason = await report_to(self._farms, frame.head)
            head = {"reason": reason}
            await self._send(encode_frame(FrameKind.REPORTED, frame.request_id, head))
        finally:
            self._tasks.pop(frame.request_id, None)

    async def _send(self, frame: bytes) -> None:
        async with self._write_lock:
            with suppress(ConnectionError):
                self._writer.write(frame)
                await self._writer.drain()


async def serve(
    farm_file: Path, timeout_seconds: float, parity: Parity, sharing: Sharing, pair: socket.socket
) -> None:
    """Serve one daemon until its end of the pair closes."""
    clock = SystemClock()
    reader, writer = await asyncio.open_connection(sock=pair)
    dispatcher = Dispatcher(
        clock,
        timeout_seconds=timeout_seconds,
        version=__version__,
        build_id=uuid.uuid4().hex,
        parity=parity,
        sharing=demanded(sharing),
    )
    try:
        async with AsyncExitStack() as stack:
            farms = Farms(farm_file, stack, clock, timeout_seconds)
            await _Process(reader, writer, farms, dispatcher).run()
    finally:
        dispatcher.close()
        writer.close()


def main(argv: list[str]) -> int:
    """Run the process; `argv` is FARM_FILE TIMEOUT PARITY SHARING FD."""
    ServiceLog("dispatcher", "hpcc-dispatch: %(message)s", os.environ).begin(logging.WARNING)
    farm_file, timeout, word, demand, descriptor = argv
    parity: Parity = next(p for p in PARITIES if p == word)
    sharing: Sharing = next(s for s in SHARINGS if s == demand)
    pair = socket.socket(fileno=int(descriptor))
    pair.setblocking(False)
    asyncio.run(serve(Path(farm_file), float(timeout), parity, sharing, pair))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
