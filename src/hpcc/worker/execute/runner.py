"""Runs one action, from its digest to a result that may be released.

A guest runs a tenant's code, so all that it sends is hostile, and a result that leaves this worker
is evidence. The order of the steps in `Runner.run` is therefore the rule:

1. Refuse an action that is quarantined, and one whose inputs are not all in the tenant's store
   (asked at most every 30 s for each blob: `input_trees`).
2. Retain the inputs, so that `hpcc audit reproduce` can run the action again.
3. Lease a guest of the trust domain, and compare its isolation with the promised one.
4. Run the command. The guest can read only blobs of this action's input tree.
5. Check the outputs against limits and declared paths, and store them.
6. Sign the result, and write its audit row durably.
7. Only then cache the result (exit code 0 only) and release it. What may serve colleagues: later.

Example: the audit disk is full at step 6. The outputs are in the store, but the caller gets an
error, and no action cache entry exists that could turn them into a hit.

What must never happen: a result leaves, or becomes a hit, without its row; a guest reads a blob of
another action; a guest that broke the protocol runs another exec. A run that started in a guest and
failed leaves a row with the status "abandoned".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from hpcc.core import (
    CallerError,
    Digest,
    ExecRequest,
    HpccError,
    ImageDigest,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
    OutputEvent,
    TenantId,
)
from hpcc.core.memo import LruMemo
from hpcc.core.quarantine import MAX_GUEST_DEATHS, ActionQuarantine
from hpcc.identity.results import ResultSigner
from hpcc.ports import AuditLog, AuditRow, BlobStore, Clock, GuestLostError, SecurityEvent
from hpcc.reapi.result import ResultRecord, encode_result
from hpcc.reapi.signed import ResultScope
from hpcc.rpc.base.errors import DeadlineError, MissingBlobsError
from hpcc.rpc.base.method import current_caller
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.rows import Caller, ExecutionResult, Lineage, audit_row
from hpcc.worker.execute.announced import comes_soon
from hpcc.worker.execute.exec_request import ExecInputs, exec_request
from hpcc.worker.execute.input_trees import ActionInputs, InputTrees
from hpcc.worker.execute.lineage import lineage_of
from hpcc.worker.execute.output_collector import GuestOutputCollector, keep_outputs
from hpcc.worker.execute.output_room import OutputRoom, OutputShare
from hpcc.worker.execute.sharing import Executed, ResultSharing, row_label
from hpcc.worker.execute.work import Work
from hpcc.worker.pool.pool import GuestPool, Lease
from hpcc.worker.stores.entries import lineage_digest, pack_entry
from hpcc.worker.stores.kept_inputs import KeptInputs
from hpcc.worker.stores.storage import TenantStorage

# Beyond the compile's own limit: staging and fetching over the guest's one stream.
_TRANSFER_SECONDS: Final = 120.0
# The exit code in the row of a compile that did not end.
NO_EXIT_CODE: Final = -1
# A cancelled execution has a caller that waits for its end.
_ABANDONED_ROW_SECONDS: Final = 5.0
_MAX_KILLERS: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """The worker's id and the limits of one compile; `by_image` has other sizes of guests."""

    worker: str
    memory_mib: int
    max_wall_seconds: float
    audit_argv: bool
    by_image: Mapping[ImageDigest, int] = field(default_factory=dict)

    def memory_of(self, image: ImageDigest) -> int:
        """Return the memory of a guest of this image, in MiB."""
        return self.by_image.get(image, self.memory_mib)


class Runner:
    """Runs actions. A result is released only after its audit row is durable."""

    def __init__(
        self,
        config: RunnerConfig,
        storage: TenantStorage,
        pool: GuestPool,
        audit: AuditLog,
        clock: Clock,
        signer: ResultSigner,
        *,
        retained: KeptInputs | None = None,
        room: OutputRoom | None = None,
    ) -> None:
        self._room = room or OutputRoom()
        self._config, self._storage, self._pool = config, storage, pool
        self._audit, self._clock, self._signer = audit, clock, signer
        # What publishes results for colleagues; None: nothing does.
        self.sharing: ResultSharing | None = None
        self._retained, self._trees = retained, InputTrees(clock)
        self.scheduler_id = ""
        self.waited: Callable[[str, float], None] = lambda *_: None  # a tenant, seconds for a guest
        self.quarantine: ActionQuarantine[tuple[TrustDomain, Digest]] = ActionQuarantine()
        # Actions that ended a guest, of any caller and at any time that is remembered.
        self._killers: LruMemo[tuple[TenantId, Digest], bool] = LruMemo(_MAX_KILLERS)

    def has_ended_a_guest(self, tenant: TenantId, action: Digest) -> bool:
        """Return whether an action of a tenant ended a guest here, for whatever caller."""
        return bool(self._killers.use((tenant, action)))

    def heard(self, domain: TrustDomain, client: Client) -> None:
        """Start guests for the compiles that a client is about to send, as far as limits allow."""
        if comes_soon(client):
            self._expect(domain, client.expected)

    def _expect(self, domain: TrustDomain, count: int) -> None:
        if count:
            self._pool.expect(domain, count)

    async def run(self, work: Work) -> ExecutionResult:
        """Run the action and return its signed result, after the caller's audit row was written.

        Raises:
            MissingBlobsError: inputs are not in the store.
            InfrastructureError: guest, store or audit failed; no result is released.
            CallerError: the action is quarantined or exceeds a limit.
            ReapiError: the input tree breaks a rule of REAPI.
        """
        if self.quarantine.holds((work.domain, work.digest), self._clock.monotonic()):
            raise CallerError(
                f"this action ended {MAX_GUEST_DEATHS} guests and is quarantined",
                reason="quarantined",
            )
        self._expect(work.domain, work.client.expected)
        tenant = work.domain.tenant
        if work.is_verification:
            self._audit.require_room(tenant.value)
        store = self._trees.store(tenant, await self._storage.blobs(tenant))
        tree = await self._trees.read(tenant, store, work.action.input_root)
        await self._retain(work, store, tree)
        with self._room.share(tenant) as share:
            async with self._pool.lease(work.domain, is_patient=work.is_verification) as lease:
                _check_label(work.domain, lease)
                started_at = self._clock.now()
                if not work.is_verification:
                    self.waited(tenant.value, started_at - work.queued_at)
                try:
                    collector = await self._execute(work, lease, store, tree, share)
                except MissingBlobsError:
                    raise  # the command has not run
                except asyncio.CancelledError:
                    reason = "preempted" if work.is_verification else "cancelled"
                    await self._abandoned(work, lease, started_at, reason)
                    raise
                except HpccError as error:
                    await self._abandoned(work, lease, started_at, error.reason)
                    raise
            event = collector.check()
            # All outputs have been hashed: what gets a place in the guest now cannot change them.
            is_overlapped = lease.is_overlapped
            outputs = await keep_outputs(store, work.command, collector)
            collector.outputs.clear()
        lineage = self._lineage(work, lease)
        ended = replace(
            self._unended(work, lease, started_at, lineage),
            exit_code=event.exit_code,
            stdout=bytes(collector.stdout),
            stderr=bytes(collector.stderr),
            outputs=outputs,
            reason=event.reason,
        )
        scope = ResultScope(tenant=tenant, action=work.digest, principal=work.domain.principal)
        record = self._signer.sign(ended, scope)
        is_fresh = not lease.execs_before and not is_overlapped
        status = "verify" if work.is_verification else "executed"
        row = replace(
            self.row(work, record, lineage, status=status),
            sharing=row_label(work.sharing, is_fresh=is_fresh),
        )
        await self._audit.append(row)
        made = await self._release(work, record, lineage)
        if record.exit_code == 0:
            self._share(work, made, row.row_id, is_fresh=is_fresh, is_overlapped=is_overlapped)
        return made

    def _share(
        self, work: Work, made: ExecutionResult, row: str, *, is_fresh: bool, is_overlapped: bool
    ) -> None:
        if self.sharing is None or work.sharing is None or work.action.do_not_cache:
            return
        executed = Executed(
            action=work.digest,
            domain=work.domain,
            sharing=work.sharing,
            record=made.record,
            lineage=made.lineage,
            row=row,
            is_fresh=is_fresh,
            is_overlapped=is_overlapped,
            work=work,
        )
        self.sharing.offer(executed)

    async def _retain(self, work: Work, store: BlobStore, tree: ActionInputs) -> None:
        """Keep the inputs for `reproduce`. A failure is recorded and does not fail the compile.

        This happens before the run, because the cache may evict inputs during it.
        """
        if self._retained is None:
            return
        tenant, action = work.domain.tenant, work.action
        try:
            await self._retained.keep(tenant, store, work.digest, action, tree.parts)
        except (InfrastructureError, NotFoundError) as error:
            await self._event("inputs-not-retained", work, ("reason", error.reason))

    async def _abandoned(self, work: Work, lease: Lease, started_at: float, reason: str) -> None:
        """Write the row of a compile that ran at least partly in a guest and gave no result.

        Nothing is released. A trail that cannot be written is therefore recorded and not raised:
        the error that ended the compile says more.
        """
        lineage = self._lineage(work, lease)
        record = replace(self._unended(work, lease, started_at, lineage), reason=reason)
        abandoned = self.row(work, record, lineage, status="abandoned")
        try:
            async with asyncio.timeout(_ABANDONED_ROW_SECONDS):
                await self._audit.append(abandoned)
        except (InfrastructureError, TimeoutError):
            await self._event("audit-row-lost", work, ("reason", reason))

    def _unended(
        self, work: Work, lease: Lease, started_at: float, lineage: Lineage
    ) -> ResultRecord:
        """Describe what ran the action until now, without its results."""
        identity = lease.guest.identity
        return ResultRecord(
            exit_code=NO_EXIT_CODE,
            stdout=b"",
            stderr=b"",
            outputs=(),
            isolation=identity.isolation,
            reuse=work.domain.reuse,
            guest_id=identity.guest_id,
            guest_execs_before=lease.execs_before,
            worker=self._config.worker,
            image=work.domain.image.value,
            queued_at=work.queued_at,
            started_at=started_at,
            completed_at=self._clock.now(),
            kernel_digest=identity.kernel_digest,
            agent_digest=identity.agent_digest,
            lineage_digest=lineage_digest(lineage),
        )

    async def _release(self, work: Work, record: ResultRecord, lineage: Lineage) -> ExecutionResult:
        if record.reason == "deadline":
            raise DeadlineError("the compile ran out of time", reason="compile-deadline")
        if record.reason == "output-tree":
            raise CallerError(
                "an output directory holds a link, a device, too many entries or a name that cannot"
                " be kept: outputs are plain files and directories",
                reason="output-tree",
            )
        if record.reason:
            raise InfrastructureError(
                f"the compile could not run in the guest: {record.reason}",
                reason=f"guest-{record.reason}",
            )
        result = encode_result(record)
        if record.exit_code == 0 and not work.action.do_not_cache:
            cache = await self._storage.actions(work.domain)
            try:
                await cache.put(work.digest, pack_entry(lineage, result))
            except InfrastructureError as error:
                await self._event("action-cache-write-failed", work, ("reason", error.reason))
        return ExecutionResult(action=work.digest, result=result, record=record, lineage=lineage)

    async def _execute(
        self,
        work: Work,
        lease: Lease,
        store: BlobStore,
        tree: ActionInputs,
        share: OutputShare,
    ) -> GuestOutputCollector:
        request = self._request(work, tree)
        collector = GuestOutputCollector(request)
        inputs = ExecInputs(store, tree.parts)
        try:
            async with (
                asyncio.timeout(request.limits.wall_seconds + _TRANSFER_SECONDS),
                aclosing(lease.guest.exec(request, inputs)) as events,
            ):
                async for event in events:
                    if isinstance(event, OutputEvent):
                        await share.take(len(event.data))
                    collector.take(event)
        except NotFoundError as error:
            raise MissingBlobsError(tuple(inputs.missing)) from error
        except GuestLostError as error:
            if lease.is_recalled:
                raise InfrastructureError("the worker stops", reason="draining") from error
            await self._died(work, lease, str(error), error.reason, is_culprit=False)
            if lease.is_anothers_fault:
                # A separate reason: the client must not count it against this action either.
                raise GuestLostError(str(error), reason="guest-lost-by-another") from error
            raise
        except (IntegrityError, TimeoutError) as error:
            # The guest cannot be trusted any more: it ends, and the action's count rises.
            text = str(error) or "the guest did not answer in time"
            cause = error.reason if isinstance(error, IntegrityError) else "guest-silent"
            is_culprit = isinstance(error, IntegrityError)
            await self._died(work, lease, text, cause, is_culprit=is_culprit)
            raise GuestLostError(text) from error
        return collector

    def _request(self, work: Work, tree: ActionInputs) -> ExecRequest:
        return exec_request(
            work.action,
            work.command,
            tree.files,
            parts=tree.parts,
            directories=tree.empty_directories,
            memory_mib=self._config.memory_of(work.domain.image),
            max_wall_seconds=self._config.max_wall_seconds,
        )

    async def _died(
        self, work: Work, lease: Lease, reason: str, cause: str, *, is_culprit: bool
    ) -> None:
        """Count a lost guest against the action, unless another exec caused the loss.

        On return the guest is gone and the scheduler has its id.
        """
        action = (work.domain, work.digest)
        self._killers[work.domain.tenant, work.digest] = True
        if not lease.is_anothers_fault and self.quarantine.note(action, self._clock.monotonic()):
            await self._event("action-quarantined", work, ("principal", work.principal))
        await lease.condemn(reason, is_culprit=is_culprit)
        guest_id = lease.guest.identity.guest_id
        fields = (("guest", guest_id), ("cause", cause), ("reason", reason[:200]))
        await self._event("guest-lost-in-compile", work, *fields)

    async def _event(self, name: str, work: Work, *fields: tuple[str, str]) -> None:
        # An execution runs in the context of the call that started it.
        peer, request_id = current_caller()
        await self._audit.event(
            SecurityEvent(
                name=name,
                at=self._clock.now(),
                tenant=work.domain.tenant.value,
                fields=(("action", str(work.digest)), *fields),
                peer=peer,
                request_id=request_id,
            )
        )

    def _lineage(self, work: Work, lease: Lease) -> Lineage:
        identity, is_kept = lease.guest.identity, self._config.audit_argv
        return lineage_of(
            work.action, work.command, identity, injected=work.client.injected, keeps_argv=is_kept
        )

    def row(
        self, work: Work, record: ResultRecord, lineage: Lineage, *, status: str = "executed"
    ) -> AuditRow:
        """Build the audit row of an execution."""
        row = audit_row(
            record,
            lineage,
            action=work.digest,
            who=Caller.of(work.client, work.domain.tenant, work.principal, work.client_version),
            status=status,
            scheduler=self.scheduler_id,
            started_at=record.started_at,
            ended_at=record.completed_at,
        )
        return replace(row, engine=work.engine, lease=work.lease)


def _check_label(domain: TrustDomain, lease: Lease) -> None:
    """Check that the guest has the isolation that its trust domain promises.

    Raises:
        InfrastructureError: it has another isolation.
    """
    if lease.guest.identity.isolation is not domain.isolation:
        raise InfrastructureError("the guest has another isolation", reason="isolation")
