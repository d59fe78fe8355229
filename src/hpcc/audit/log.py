"""The writer of a trail: takes rows and events from many tasks and syncs them in groups."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.base.retention_statement import RetentionAction, RetentionStatement
from hpcc.audit.base.retirement import retired_event
from hpcc.audit.base.segments import Seal
from hpcc.audit.base.signing import signing_event
from hpcc.audit.base.spool_limits import SpoolFullError, SpoolLimits
from hpcc.audit.base.trail_signer import SignerError, SignerRefusedError, TrailSigner
from hpcc.audit.base.waiting import Waiting, new_future, settle
from hpcc.audit.disk import watched_disk
from hpcc.audit.group import GroupWriter
from hpcc.audit.holds import Retentions, retention_event
from hpcc.audit.packing import packing_event
from hpcc.audit.room import TenantRoom
from hpcc.audit.signer.process import SignerProcess
from hpcc.audit.signer.watch import watched_signer
from hpcc.audit.spool import Spool
from hpcc.audit.tail import torn_event
from hpcc.core import HpccError, InfrastructureError, IntegrityError
from hpcc.files.whole import FaultPoint, no_fault
from hpcc.ports import AuditRow, Clock, SecurityEvent, SignedHead, SignedTree, TreeMark

_log: Final = logging.getLogger(__name__)
_MAX_WAITING: Final = 4096
_MAX_GROUP: Final = 256
# The pause between two runs of retention. Nothing waits for them.
RETENTION_SECONDS: Final = 60.0


class SpoolAuditLog:
    """`AuditLog` over a spool. `open_audit_log` creates it."""

    def __init__(
        self, spool: Spool, signer: TrailSigner, clock: Clock, retentions: Retentions
    ) -> None:
        self._spool, self._signer, self._clock = spool, signer, clock
        self._retentions, self._retaining = retentions, asyncio.Lock()
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue(_MAX_WAITING)
        self._room = TenantRoom()
        self._groups = GroupWriter(spool, signer, self._room)
        self._indexing = asyncio.Lock()
        self.lost_events = 0
        self._acknowledged: Callable[[], int] | None = None
        self._listeners: list[Callable[[SecurityEvent], None]] = []

    @property
    def size(self) -> tuple[int, int]:
        """Return how many bytes the trail takes, and how many it may take."""
        return self._spool.total_bytes, self._spool.limits.max_bytes

    @property
    def anchor(self) -> tuple[int, str]:
        """Return the number of records and the hash of the last one."""
        return self._groups.anchor

    @property
    def signer(self) -> TrailSigner:
        """Return what signs this trail."""
        return self._signer

    def signed_anchor(self) -> SignedHead | None:
        """Return the current end of the chain, signed, for the scheduler to store.

        None if the process that signs gives no answer.
        """
        try:
            return self._spool.tree.anchor(self._clock.now())
        except (SignerError, SignerRefusedError) as error:
            _log.error("the signer of the trail gives no head: %s", error)
            return None

    def signed_tree(self, held: TreeMark | None) -> SignedTree | None:
        """Return the signed head of the tree, with the proof that it contains a scheduler's.

        None if the files of the tree cannot be read; a restart makes them anew.
        """
        try:
            return self._spool.tree.prove(held, self._clock.now())
        except OSError as error:
            _log.error("the trail has no head: %s; restart this worker", error)
        except (SignerError, SignerRefusedError) as error:
            _log.error("the signer of the trail gives no head: %s", error)
        return None

    def hold_for(self, acknowledged: Callable[[], int]) -> None:
        """Keep the segments with records from number `acknowledged()` on: a sink lacks them."""
        self._acknowledged = acknowledged

    def listen(self, listener: Callable[[SecurityEvent], None]) -> None:
        """Let a listener have each security event from now on, also those of the trail itself.

        It gets an event once, however often it is given here, and one that the disk has no room
        for as well. It must not fail or wait.
        """
        if listener not in self._listeners:
            self._listeners.append(listener)

    async def append(self, row: AuditRow) -> None:
        await self._put(Waiting(row, new_future()))

    async def event(self, event: SecurityEvent) -> None:
        self._tell(event)
        try:
            await self._put(Waiting(event, new_future()))
        except InfrastructureError:
            self.lost_events += 1

    async def begin_signing(self) -> None:
        """Record that each record from here on is signed, unless the chain has that already.

        Nothing else may be written meanwhile. Without room for it, the next start tries again.
        """
        if not self._spool.must_announce:
            return
        first, lost = self._groups.anchor[0], self.lost_events
        await self.event(signing_event(self._clock.now(), first))
        if self.lost_events == lost:
            try:
                await asyncio.to_thread(self._spool.announced, first)
            except OSError as error:
                _log.warning("audit segments lag behind: %s", error)

    def require_room(self, tenant: str = "") -> None:
        if self._signer.trouble:
            raise SignerError(
                f"no new work, because nothing signs the audit trail: {self._signer.trouble}"
            )
        if self._spool.is_nearly_full:
            raise SpoolFullError(
                "the audit trail has no room for new work: the disk is full, a sink is behind, a"
                " hold keeps old records, or audit_max_bytes is too small"
            )
        if not self._room.has_room(tenant, self._spool.free_bytes):
            raise InfrastructureError(
                "this tenant's records fill its part of the audit trail: what is free is for other"
                " tenants; a sink is behind, or audit_max_bytes is too small",
                reason="audit-share",
            )

    async def _put(self, waiting: Waiting) -> None:
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull as error:
            raise InfrastructureError("too many audit records wait", reason="audit-busy") from error
        await waiting.done

    async def run(self) -> None:
        """Write queued records until cancelled; then write the rest of the queue."""
        try:
            while True:
                group = [await self._queue.get()]
                await self._commit(self._more(group))
        finally:
            while not self._queue.empty():
                group = self._more([])
                self._groups.write(group)
                settle(group)

    async def keep_house(self) -> None:
        """Run retention and sealing by age, and make indexes that are missing, until cancelled."""
        sealed_at = self._clock.monotonic()
        while True:
            await self.retire()
            await self.index_old()
            await self.pack_old()
            await self._clock.sleep(RETENTION_SECONDS)
            after = self._spool.limits.seal_seconds
            if after and self._clock.monotonic() - sealed_at >= after:
                sealed_at = self._clock.monotonic()
                # It fails with records before it that nothing signs now, or that the disk refuses.
                with suppress(InfrastructureError):
                    await self.seal()

    async def index_old(self) -> None:
        """Make the indexes that older segments lack, one segment at a time."""
        has_more = True
        async with self._indexing:
            while has_more:
                try:
                    has_more = await asyncio.to_thread(self._spool.missing.make_one)
                except (OSError, InfrastructureError, IntegrityError) as error:
                    _log.warning("an audit segment has no index, and is read whole: %s", error)

    async def pack_old(self) -> None:
        """Pack the sealed segments that are not packed, one at a time, after the event about it."""
        packer = self._spool.packer
        async with self._indexing:
            try:
                while (seal := await asyncio.to_thread(packer.next_or_none)) is not None:
                    if await asyncio.to_thread(packer.lacks_event):
                        event = packing_event(self._clock.now(), seal.first)
                        await self._put(Waiting(event, new_future(), is_forced=True))
                        self._tell(event)
                    if await asyncio.to_thread(packer.pack, seal):
                        self._spool.kept.measure(seal.first)
                        self._room.shrink(seal.first, self._spool.kept.stored_bytes(seal))
            except (OSError, InfrastructureError, IntegrityError) as error:
                _log.warning("an audit segment is not packed: %s", error)

    async def retire(self) -> int:
        """Remove the segments that may go; return how many.

        An `audit-retired` event is written to the chain first. What the retention role keeps stays.
        """
        async with self._retaining:
            chosen = self._spool.to_retire(self._acknowledged() if self._acknowledged else None)
            try:
                chosen = await asyncio.to_thread(self._retentions.removable, chosen)
                return await self._retire(chosen)
            except (HpccError, OSError) as error:
                _log.warning("cannot delete old audit segments: %s", error)
                return 0

    async def obey(self, envelope: bytes) -> RetentionStatement:
        """Record a statement of the retention role durably, then let it count; return it.

        Raises:
            CallerError: it is malformed, of another worker, or has no effect.
            PolicyError: too few people of the role signed it.
            AuditDamagedError: the trail was changed.
            InfrastructureError: it could not be recorded, and does not count.
        """
        async with self._retaining:
            found = await asyncio.to_thread(self._retentions.check, envelope)
            first, event = (
                self._groups.anchor[0],
                retention_event(found, envelope, self._clock.now()),
            )
            await self._put(Waiting(event, new_future(), is_forced=True))
            self._retentions.enter(found, first)
        self._tell(event)
        if found.action is RetentionAction.HOLD and not self._spool.kept.has_whole_seal:
            # An earlier version obeys no hold. It refuses a trail with a seal of this one.
            with suppress(InfrastructureError):
                await self.seal()
        return found

    async def _retire(self, chosen: list[Seal]) -> int:
        if not chosen:
            return 0
        event = retired_event(chosen[-1].end, chosen[-1].signed.head, self._clock.now())
        await self._put(Waiting(event, new_future(), chosen))
        # Not before: without the record nothing was removed, and the next minute tries again.
        self._tell(event)
        return len(chosen)

    def _tell(self, event: SecurityEvent) -> None:
        for listener in self._listeners:
            listener(event)

    def _more(self, group: list[Waiting]) -> list[Waiting]:
        while len(group) < _MAX_GROUP and not self._queue.empty():
            group.append(self._queue.get_nowait())
        return group

    async def _commit(self, group: list[Waiting]) -> None:
        """Write one group in a thread. A cancel waits for the thread, which keeps the order."""
        writing = asyncio.get_running_loop().run_in_executor(None, self._groups.write, group)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing
            settle(group)
            raise
        settle(group)

    async def seal(self) -> None:
        """Seal the open segment at any size. If the disk fails, it stays open."""
        await self._put(Waiting(None, new_future()))


def _signer(
    worker: str, key: Ed25519PrivateKey | Path | SignerProcess
) -> HeadSigner | SignerProcess:
    if isinstance(key, SignerProcess):
        return key
    return SignerProcess(key, worker) if isinstance(key, Path) else HeadSigner(worker, key)


@asynccontextmanager
async def open_audit_log(
    directory: Path,
    *,
    worker: str,
    key: Ed25519PrivateKey | Path | SignerProcess,
    clock: Clock,
    limits: SpoolLimits | None = None,
    fault: FaultPoint = no_fault,
    listeners: Iterable[Callable[[SecurityEvent], None]] = (),
    mark: Path | None = None,
) -> AsyncGenerator[SpoolAuditLog]:
    """Open the trail in `directory` for its single writer. Leaving the block writes the queue.

    `listeners` are given to `listen` before the first event, which tells of a torn tail.
    `key` signs records, heads and seals, and should be used for nothing else: a key, or the file
    of one, which a process by itself gets (`hpcc.audit.signer`). `mark` is a file beside the key,
    made at the first start of a version that signs records: see `Spool`.

    Raises:
        AuditDamagedError: the trail was changed. It is left as it is.
        InfrastructureError: it cannot be opened, or another process writes it.
    """
    signer = _signer(worker, key)
    spool = await asyncio.to_thread(
        Spool, directory, signer, clock, limits or SpoolLimits(), fault=fault, mark=mark
    )
    try:
        retentions = Retentions(directory, worker, spool.limits.role)
        log = SpoolAuditLog(spool, signer, clock, retentions)
        for listener in listeners:
            log.listen(listener)
        async with _running(log), watched_disk(spool, directory, clock):
            await log.begin_signing()
            if spool.torn is not None:
                await log.event(torn_event(spool.torn, clock.now()))
            async with watched_signer(signer, log.event, clock):
                yield log
    finally:
        spool.packer.stop()
        spool.close()


@asynccontextmanager
async def _running(log: SpoolAuditLog) -> AsyncGenerator[None]:
    writer = asyncio.Task(log.run(), name="audit writer")
    keeper = asyncio.Task(log.keep_house(), name="audit retention")
    try:
        yield
    finally:
        # The writer ends last, because it writes what the keeper waits for.
        for task in (keeper, writer):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
