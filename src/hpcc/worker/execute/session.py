"""Checks each caller's route token, and serves what the token allows: cache and execution."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, replace
from typing import Final

from hpcc.audit.limiter import EventLimiter
from hpcc.core import (
    PRIVATE_ONLY,
    Blob,
    Digest,
    GuestReuse,
    HpccError,
    Isolation,
    NotFoundError,
    PolicyError,
    SharingPolicy,
    TenantId,
)
from hpcc.identity.result_keys import ResultKeys
from hpcc.identity.results import ResultError
from hpcc.identity.token import RouteClaims
from hpcc.ports import ActionCache, AuditLog, AuditRow, Clock
from hpcc.reapi.command import IMAGE_PROPERTY
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.output_tree import output_tree_files
from hpcc.reapi.result import ResultRecord, encode_result
from hpcc.reapi.signed import ResultScope, ResultTerms
from hpcc.reapi.tree import TreeWalk
from hpcc.rpc.base.errors import BusyError
from hpcc.rpc.base.method import current_caller
from hpcc.rpc.reapi.session import Client, Finished, Running
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.rows import Caller, ExecutionResult, Lineage, audit_row
from hpcc.worker.execute.deduper import ExecutionDeduper, ExecutionKey, ExecutionOutcome
from hpcc.worker.execute.runner import Runner
from hpcc.worker.execute.sharing import ResultSharing
from hpcc.worker.execute.work import Work, check_outputs, read_action
from hpcc.worker.stores.entries import open_entry, open_shared
from hpcc.worker.stores.quotas import Quotas
from hpcc.worker.stores.storage import TenantStorage

# The outputs in one answer. An answer is in memory five times while it is made, and counts in no
# limit. More is downloaded, which costs a call and is bounded (`hpcc.rpc.base.blob_room`).
_MAX_INLINE_BYTES: Final = 1 << 20
# How long a caller waits for colleagues who may agree on what it asks for: a few compiles.
_WAIT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDeps:
    """Session dependencies: the objects that all sessions share."""

    storage: TenantStorage
    deduper: ExecutionDeduper
    runner: Runner
    audit: AuditLog
    events: EventLimiter
    clock: Clock
    isolation: Isolation
    reuse: GuestReuse
    quotas: Quotas
    result_keys: ResultKeys
    sharing: ResultSharing | None = None
    # Gets the claims of each caller who is admitted.
    admitted: Callable[[RouteClaims], None] = lambda _: None

    async def refusal(self, name: str, tenant: str, *fields: tuple[str, str]) -> None:
        """Record a refusal as a security event, with the peer and request id of this call."""
        peer, request_id = current_caller()
        await self.events.event(name, tenant, *fields, peer=peer, request_id=request_id)


class WorkerSession:
    """One call's rights. Tenant, image and principal come from the token, not from the request."""

    def __init__(self, deps: SessionDeps, claims: RouteClaims, client: Client) -> None:
        self._deps, self._claims, self._client = deps, claims, client
        self._domain = TrustDomain.of(
            tenant=claims.tenant,
            image=claims.image,
            isolation=deps.isolation,
            reuse=deps.reuse.stricter(claims.guest_reuse),  # the worker's or the tenant's policy
            principal=claims.subject,
        )
        self._sharing = self._accepted()
        deps.runner.heard(self._domain, client)

    @property
    def _is_common(self) -> bool:
        """Whether the tenant's members share guests, and with them every result."""
        return self._domain.reuse is GuestReuse.TENANT

    def _accepted(self) -> SharingPolicy:
        """Return which colleagues' results this caller may get: by its tenant and by itself."""
        claimed = self._claims.sharing
        if claimed is None or self._is_common:
            return PRIVATE_ONLY
        return claimed.policy.meet(self._client.sharing)

    @property
    def tenant(self) -> TenantId:
        return self._claims.tenant

    async def find_missing(self, digests: tuple[Digest, ...]) -> frozenset[Digest]:
        return await (await self._deps.storage.blobs(self.tenant)).find_missing(digests)

    async def put(self, blob: Blob) -> None:
        """Store an uploaded blob; raises BusyError if the tenant's upload quota is used up."""
        size_bytes, principal = blob.digest.size_bytes, self._claims.subject
        try:
            self._deps.quotas.upload(self.tenant, size_bytes, principal=principal)
        except BusyError:
            await self._deps.refusal("quota-upload", self.tenant.value)
            raise
        await (await self._deps.storage.blobs(self.tenant)).put(blob)

    async def keep(self, blob: Blob) -> None:
        """Store what an action of this tenant printed; it does not count as an upload."""
        await (await self._deps.storage.blobs(self.tenant)).put(blob)

    async def get(self, digest: Digest) -> Blob:
        return await (await self._deps.storage.blobs(self.tenant)).get(digest)

    async def tree(self, root: Digest) -> tuple[bytes, ...]:
        """Return the encoded directories of an input tree; NotFoundError if one is missing."""
        walk, found = TreeWalk(root), dict[Digest, bytes]()
        while wanted := walk.wanted:
            for digest in wanted:
                found[digest] = (await self.get(digest)).data
                walk.feed(digest, found[digest])
        return tuple(found.values())

    async def cached_result(self, action: Digest, inline: frozenset[str]) -> bytes:
        """Return a result of this trust domain, after the caller's audit row was written.

        Raises:
            NotFoundError: there is no valid result, or the store lacks one of its blobs.
            InfrastructureError: store or audit failed, or the trail has no room for the row.
        """
        started = self._deps.clock.now()
        lineage, record = await self._stored(action)
        if not await self._are_here(record):
            raise NotFoundError(f"outputs of {action} are gone", reason="outputs-gone")
        # Hits are cheap to ask for. What is left of a trail is for rows of compiles that run.
        self._deps.audit.require_room(self.tenant.value)
        answer = await self._inlined(record, inline)
        await self._deps.audit.append(self._row("hit", action, record, lineage, started))
        return answer

    async def _are_here(self, record: ResultRecord) -> bool:
        """Return whether the store has every output, and every file in output directories."""
        if await self.find_missing(tuple(o.digest for o in record.outputs)):
            return False
        for output in record.outputs:
            if output.is_directory:
                try:
                    files = output_tree_files((await self.get(output.digest)).data)
                except (NotFoundError, ReapiError):
                    return False
                if await self.find_missing(tuple(files)):
                    return False
        return True

    async def _stored(self, action: Digest) -> tuple[Lineage, ResultRecord]:
        """Return a result of this trust domain, else one of the tenant; raises as `_opened`."""
        domain, storage = self._domain, self._deps.storage
        try:
            return await self._opened(await storage.actions(domain), action, is_shared=False)
        except NotFoundError:
            if self._sharing.is_private:
                raise
        shared = await storage.shared_results(domain.tenant, domain.isolation)
        return await self._opened(shared, action, is_shared=True)

    async def _opened(
        self, cache: ActionCache, action: Digest, *, is_shared: bool
    ) -> tuple[Lineage, ResultRecord]:
        """Return a result that a worker of this farm signed for this action and its caller.

        A party that can write to the store can put anything there. Anything else is a miss, and is
        recorded as a security event; but a shared result may be less than this caller demands.

        Raises:
            NotFoundError: there is no entry, or it is not valid.
        """
        entry = await cache.get(action)
        keys, now = self._deps.result_keys, self._deps.clock.now()
        terms, domain = self._terms(action), self._domain
        try:
            if is_shared:
                return await open_shared(entry, domain.isolation, terms, keys, now=now)
            return await open_entry(entry, domain, terms, keys, now=now)
        except (ReapiError, ResultError) as error:
            fields = (("action", str(action)), ("reason", error.reason))
            if error.reason != "result-sharing":
                await self._deps.refusal("result-refused", self.tenant.value, *fields)
            raise NotFoundError(f"no result for {action}", reason=error.reason) from error
        except HpccError as error:  # including a scheduler that refuses to answer this worker
            raise NotFoundError(
                f"no scheduler can be asked which key signed the result of {action}",
                reason="result-key",
            ) from error

    def _terms(self, action: Digest) -> ResultTerms:
        domain = self._domain
        return ResultTerms(
            scope=ResultScope(tenant=domain.tenant, action=action, principal=domain.principal),
            image=domain.image,
            minimum_isolation=self._claims.minimum_isolation,
            reuse=domain.reuse,
            sharing=self._sharing,
        )

    async def execute(
        self,
        action: Digest,
        inline: frozenset[str],
        *,
        skip_cache: bool,
        arrive: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Running | Finished]:
        """Answer from the cache, else run the action or join its execution.

        Closing the generator early ends this caller's wait. Raises what `_work` raises, and:
            PolicyError: the token does not allow execution.
            InfrastructureError: there is no room for an audit row.
        """
        self._may_execute()
        if not skip_cache:
            try:
                result = await self._found(action, inline)
            except NotFoundError:
                pass
            else:
                name = f"{self.tenant}/operations/{action.hash[:32]}-hit"
                yield Finished(name, result=result, is_cached=True)
                return
        # As the call's own end: a gateway, which reads no answer, then uses another worker.
        self._deps.quotas.require_open()
        sharing = self._deps.sharing
        # Without an await since the look-up, so that others see that this is being made.
        with sharing.executions.making(self._domain, action) if sharing else nullcontext():
            self._deps.audit.require_room(self.tenant.value)
            await arrive()
            work = await self._work(action)
            # REAPI: executions that must not be cached must not be merged either.
            alone = uuid.uuid4().hex if work.action.do_not_cache else ""
            key = ExecutionKey(work.domain, action, alone)
            updates = self._deps.deduper.run(key, self._claims.subject, lambda: self._run(work))
            async with aclosing(self._answers(updates, inline)) as answers:
                async for answer in answers:
                    yield answer

    async def _found(self, action: Digest, inline: frozenset[str]) -> bytes:
        """Return a result as `cached_result` does; wait for colleagues who are making it.

        At most as many execute it at the same time as have to agree. Others wait for them a bounded
        time, look again after each outcome, and then execute.
        """
        deadline = self._deps.clock.monotonic() + _WAIT_SECONDS
        while True:
            try:
                return await self.cached_result(action, inline)
            except NotFoundError:
                # No other task runs between this answer "no" and the caller's execution.
                if not await self._waited(action, deadline - self._deps.clock.monotonic()):
                    raise

    async def _waited(self, action: Digest, seconds: float) -> bool:
        """Wait for those who may agree, at most `seconds`; return whether to look again."""
        sharing, agree = self._deps.sharing, self._sharing.agree
        if sharing is None or not agree or seconds <= 0:
            return False
        return await sharing.executions.wait(self._domain, action, most=agree, seconds=seconds)

    async def _run(self, work: Work) -> ExecutionResult:
        runner = self._deps.runner
        return await self._deps.quotas.execute(
            self.tenant,
            lambda: runner.run(work),
            principal=self._claims.subject,
            is_leased=self._claims.leased,
        )

    async def wait(self, name: str) -> AsyncGenerator[Running | Finished]:
        """Join an execution by its name; raises as `ExecutionDeduper.wait`, and if no row fits."""
        self._may_execute()
        self._deps.audit.require_room(self.tenant.value)
        updates = self._deps.deduper.wait(name, self._domain, self._claims.subject)
        async with aclosing(self._answers(updates, frozenset())) as answers:
            async for answer in answers:
                yield answer

    def cancel(self, name: str) -> None:
        """End this principal's waits for an execution; raises as `ExecutionDeduper.cancel` does."""
        self._may_execute()
        self._deps.deduper.cancel(name, self._domain, self._claims.subject)

    def _may_execute(self) -> None:
        if "execute" not in self._claims.rights:
            raise PolicyError("the token gives no right to execute", reason="rights")

    async def _work(self, digest: Digest) -> Work:
        """Read action and command, and compare the images they name with the token's.

        Raises:
            MissingBlobsError: either is not in the store.
            ReapiError: either breaks a rule, or neither names an image.
            PolicyError: either names another image than the token.
        """
        try:
            blobs = await self._deps.storage.blobs(self.tenant)
            action, command = await read_action(blobs, digest)
        except ReapiError as error:
            if error.reason == "unpinned-image":
                await self._deps.refusal("unpinned-image", self.tenant.value)
            raise
        images = {i.digest for i in (action.image, command.image) if i is not None}
        if not images:
            raise ReapiError(f"platform needs exactly one {IMAGE_PROPERTY}", reason="platform")
        if images != {self._claims.image}:
            await self._deps.refusal("foreign-image", self.tenant.value)
            raise PolicyError("the action's image is not the token's", reason="foreign-image")
        return Work(
            digest=digest,
            action=action,
            command=check_outputs(command),
            domain=self._running_domain(digest),
            sharing=None if self._is_common else self._claims.sharing,
            principal=self._claims.subject,
            client=self._client,
            client_version=self._claims.client_version,
            queued_at=self._deps.clock.now(),
        )

    def _running_domain(self, action: Digest) -> TrustDomain:
        """Return whose guests run an action: a fresh one, if votes on the action are split."""
        sharing, domain = self._deps.sharing, self._domain
        is_split = sharing is not None and sharing.is_contested(domain, action)
        if not is_split or self._is_common:
            return domain
        return replace(domain, reuse=GuestReuse.EXEC, principal="")

    async def _answers(
        self, updates: AsyncGenerator[Running | ExecutionOutcome], inline: frozenset[str]
    ) -> AsyncGenerator[Running | Finished]:
        """Turn outcomes into answers; write the row of a caller that joined before its result."""
        started = self._deps.clock.now()
        async with aclosing(updates):
            async for update in updates:
                if isinstance(update, Running):
                    yield update
                elif (executed := update.executed) is None:
                    yield Finished(update.name, error=update.error)
                else:
                    plain = executed.result
                    result = await self._inlined(executed.record, inline) if inline else plain
                    if update.is_joined:
                        row = self._row(
                            "joined", executed.action, executed.record, executed.lineage, started
                        )
                        await self._deps.audit.append(row)
                    yield Finished(update.name, result=result)

    async def _inlined(self, record: ResultRecord, inline: frozenset[str]) -> bytes:
        """Encode the result with the contents of wanted outputs, as long as they fit."""
        contents, room = dict[str, bytes](), _MAX_INLINE_BYTES
        for output in record.outputs:
            if output.path in inline and output.digest.size_bytes <= room:
                contents[output.path] = (await self.get(output.digest)).data
                room -= output.digest.size_bytes
        return encode_result(replace(record, inline=contents))

    def _row(
        self, status: str, action: Digest, record: ResultRecord, lineage: Lineage, started: float
    ) -> AuditRow:
        """Build this caller's row for a result that another call made.

        The injected flags are the ones that this caller reports, not the other call's.
        """
        claims = self._claims
        known = (*lineage.argv, *lineage.injected_flags)
        injected = tuple(f for f in self._client.injected if f in known)
        return audit_row(
            record,
            replace(lineage, injected_flags=injected),
            action=action,
            who=Caller.of(self._client, self.tenant, claims.subject, claims.client_version),
            status=status,
            scheduler=self._deps.runner.scheduler_id,
            started_at=started,
            ended_at=self._deps.clock.now(),
        )
