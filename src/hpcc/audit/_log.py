"""The writer: rows and events from many tasks, one sync for all that wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.audit._canonical import MAX_RECORD_BYTES, Record, encode_record
from hpcc.audit._index import AuditIndex
from hpcc.audit._spool import Spool, frame_of
from hpcc.core import InfrastructureError
from hpcc.ports import AuditRow, Clock, SecurityEvent

_log: Final = logging.getLogger(__name__)
_MAX_WAITING: Final = 4096
_MAX_GROUP: Final = 256


@dataclass(slots=True)
class _Waiting:
    content: AuditRow | SecurityEvent
    done: asyncio.Future[None]


class SpoolAuditLog:
    """`AuditLog` over a spool and its index. Made by `open_audit_log`."""

    def __init__(self, spool: Spool, index: AuditIndex, worker: str) -> None:
        self._spool, self._index, self._worker = spool, index, worker
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(_MAX_WAITING)
        self.lost_events = 0
        # One tuple, so that a reader never pairs a new count with an old head.
        self._anchor = (spool.count, spool.head)

    @property
    def anchor(self) -> tuple[int, str]:
        """Return the number of records and the hash of the last, for the scheduler to keep."""
        return self._anchor

    async def append(self, row: AuditRow) -> None:
        await self._put(row)

    async def event(self, event: SecurityEvent) -> None:
        try:
            await self._put(event)
        except InfrastructureError:
            self.lost_events += 1

    async def _put(self, content: AuditRow | SecurityEvent) -> None:
        waiting = _Waiting(content, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull as error:
            raise InfrastructureError("too many audit records wait", reason="audit-busy") from error
        await waiting.done

    async def run(self) -> None:
        """Write what is queued until cancelled; then write what is left."""
        try:
            while True:
                group = [await self._queue.get()]
                await self._commit(self._more(group))
        finally:
            while not self._queue.empty():
                self._write_group(self._more([]))

    def _more(self, group: list[_Waiting]) -> list[_Waiting]:
        while len(group) < _MAX_GROUP and not self._queue.empty():
            group.append(self._queue.get_nowait())
        return group

    async def _commit(self, group: list[_Waiting]) -> None:
        """Write one group in a thread; a cancel waits for the thread, so order is kept."""
        writing = asyncio.get_running_loop().run_in_executor(None, self._write, group)
        try:
            error = await asyncio.shield(writing)
        except asyncio.CancelledError:
            _settle(group, await writing)
            raise
        _settle(group, error)

    def _write_group(self, group: list[_Waiting]) -> None:
        _settle(group, self._write(group))

    def _write(self, group: list[_Waiting]) -> InfrastructureError | None:
        """Chain, write and sync; the index follows and may lag, since the spool can refill it."""
        count, head = self._spool.count, self._spool.head
        place = self._spool.size_bytes
        placed: list[tuple[int, Record]] = []
        frames = bytearray()
        try:
            for waiting in group:
                record = encode_record(
                    waiting.content, sequence=count, previous=head, worker=self._worker
                )
                if len(record.data) > MAX_RECORD_BYTES:
                    return InfrastructureError("audit record is too large", reason="audit")
                placed.append((place + len(frames), record))
                frames += frame_of(record)
                count, head = count + 1, record.hash
            self._spool.append(bytes(frames))
        except (OSError, ValueError) as error:
            return InfrastructureError(f"audit record is not durable: {error}", reason="audit")
        self._spool.count, self._spool.head = self._anchor = count, head
        try:
            self._index.add(placed)
        except InfrastructureError as error:
            _log.warning("audit index lags behind: %s", error)
        return None


def _settle(group: list[_Waiting], error: InfrastructureError | None) -> None:
    for waiting in group:
        if waiting.done.done():
            continue
        if error is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(error)


@asynccontextmanager
async def open_audit_log(
    directory: Path, *, worker: str, clock: Clock
) -> AsyncGenerator[SpoolAuditLog]:
    """Open the trail of `directory` for its one writer; what is queued is written at the end.

    Raises:
        AuditDamagedError: the trail was changed; nothing is written over it.
        InfrastructureError: it cannot be opened, or another process writes it.
    """
    spool = await asyncio.to_thread(Spool, directory)
    try:
        index = await asyncio.to_thread(AuditIndex, directory)
        try:
            await asyncio.to_thread(index.catch_up, directory)
            log = SpoolAuditLog(spool, index, worker)
            writer = asyncio.Task(log.run(), name="audit writer")
            try:
                if spool.torn_bytes:
                    await log.event(_torn(spool.torn_bytes, clock))
                yield log
            finally:
                writer.cancel()
                with suppress(asyncio.CancelledError):
                    await writer
        finally:
            index.close()
    finally:
        spool.close()


def _torn(size: int, clock: Clock) -> SecurityEvent:
    return SecurityEvent(name="audit-torn-tail", at=clock.now(), fields=(("bytes", str(size)),))
