"""Publishes results that may serve a whole tenant, after their private form was released.

Problem: a result of one principal's guest is private. Some of these results came of a
fresh guest, and others become so when guests of several voters have given the same.

Rule, for each execution, by the policy in the caller's token:

1. Its guest had executed nothing before, and ran nothing beside it: the result is signed again as
   `fresh`, and put where the tenant's shared results are.
2. Otherwise the worker signs a claim with the caller's voter, stores it, and reads the claims of
   the action. If they agree on this result, it is signed again as `agreed`, with those claims.
3. If they are contested, the next execution here of that action gets a fresh guest.

The private entry is never touched, and a shared one is replaced only by one that is as strong
(`may_replace`), or if it does not verify any more, or if its outputs are gone.

This happens after the caller has its answer, in a bounded queue. What is lost when the worker dies
costs one more execution.

Where results differ, two fresh executions decide who is a suspect (`disagreement`). Each suspect is
the event `result-disagreement` in the audit trail.

What must never happen: a result is signed as `fresh` on the guest's word; a claim is made without
an audit row.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from hpcc.audit.limiter import EventLimiter
from hpcc.core import Digest, HpccError, NotFoundError, SharingClass, SharingPolicy
from hpcc.core.memo import LruMemo
from hpcc.identity.claims import good_claims
from hpcc.identity.result_keys import ResultKeys
from hpcc.identity.results import ResultError, ResultSigner
from hpcc.identity.token import RouteSharing
from hpcc.ports import ActionCache, Clock
from hpcc.reapi.agreement import VoteState, count_votes, may_replace, result_digest
from hpcc.reapi.claims import ClaimScope, ResultClaim, Voter
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.result import ResultRecord, SharingEvidence, encode_result
from hpcc.reapi.signed import ResultScope, ResultTerms
from hpcc.rpc.reapi.meeting import carried_claims
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.rows import Lineage
from hpcc.worker.execute.disagreement import Agreement, Disagreements, FreshRun
from hpcc.worker.execute.in_flight import TenantExecutions
from hpcc.worker.execute.turns import Candidate
from hpcc.worker.execute.work import Work
from hpcc.worker.explain.near import name_of
from hpcc.worker.stores.claims import ClaimBook
from hpcc.worker.stores.entries import open_shared, pack_entry
from hpcc.worker.stores.near_actions import NearActions
from hpcc.worker.stores.storage import TenantStorage

_log: Final = logging.getLogger(__name__)
# An execution takes longer than its publication, unless a shared store is slow.
_MAX_PENDING: Final = 1024
# Of the messages of all pending compiles. Each may have megabytes, and nearly all have none.
_MAX_PENDING_BYTES: Final = 16 << 20
_WRITERS: Final = 4
_MAX_CONTESTED: Final = 4096
# An id of a claim's key until it is signed.
_NO_KEY: Final = "0" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """A released result and what the worker itself observed of its execution.

    `row` is the id of its audit row. `is_fresh` and `is_overlapped` are the pool's.
    """

    action: Digest
    domain: TrustDomain
    sharing: RouteSharing
    record: ResultRecord
    lineage: Lineage
    row: str
    is_fresh: bool
    is_overlapped: bool
    work: Work

    def again(self, claimants: tuple[str, ...] = ()) -> Candidate:
        """Return this execution as one that an idle worker may repeat."""
        work, record = self.work, self.record
        return Candidate(
            action=self.action,
            domain=self.domain,
            sharing=self.sharing,
            principal=work.principal,
            # Without what authorizes a call.
            client=replace(
                work.client, credential="", proof="", known=None, expected=0, claims=b""
            ),
            client_version=work.client_version,
            result=result_digest(record),
            seconds=record.completed_at - record.started_at,
            claimants=claimants,
        )

    @property
    def size_bytes(self) -> int:
        """The size of the compile's messages, in bytes."""
        return len(self.record.stdout) + len(self.record.stderr)


class ResultSharing:
    """Publishes shared results and claims; `run` does the work."""

    def __init__(
        self,
        storage: TenantStorage,
        signer: ResultSigner,
        keys: ResultKeys,
        clock: Clock,
        events: EventLimiter,
    ) -> None:
        self._storage, self._signer = storage, signer
        self._keys, self._clock, self._events = keys, clock, events
        self._disagreements = Disagreements()
        self._near = NearActions()
        self.executions = TenantExecutions()
        self._queue: asyncio.Queue[tuple[Executed, ExitStack]] = asyncio.Queue(_MAX_PENDING)
        self._contested: LruMemo[tuple[TrustDomain, Digest], bool] = LruMemo(_MAX_CONTESTED)
        self._pending_bytes = 0
        # How many results are offered and not yet published or dropped.
        self.pending = 0
        self.counters: Counter[str] = Counter()
        # Called with results that serve one principal until somebody executes them again.
        self.on_private: Callable[[Candidate], None] = lambda _: None

    def is_contested(self, domain: TrustDomain, action: Digest) -> bool:
        """Return whether votes will not settle an action, so that a fresh guest should run it."""
        return bool(self._contested.use((domain.common, action)))

    def standing(self, domain: TrustDomain, action: Digest) -> tuple[Agreement, str]:
        """Return how the known results of an action differ; see `Disagreements.standing`."""
        return self._disagreements.standing(domain, action)

    def offer(self, executed: Executed) -> None:
        """Publish what the policy allows, later. With a full queue it is dropped and counted."""
        if executed.sharing.policy.is_private:
            return
        if self._queue.full() or self._pending_bytes + executed.size_bytes > _MAX_PENDING_BYTES:
            self.counters["lost.queue-full"] += 1
            return
        self._pending_bytes += executed.size_bytes
        self.pending += 1
        # Until it is published, it counts as being made: who waits for it looks up again then.
        held = ExitStack()
        held.enter_context(self.executions.making(executed.domain, executed.action))
        self._queue.put_nowait((executed, held))

    async def wait_idle(self) -> None:
        """Wait until everything that was offered is published or dropped."""
        await self._queue.join()

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WRITERS):
                group.create_task(self._writer())

    async def _writer(self) -> None:
        while True:
            executed, held = await self._queue.get()
            try:
                await self._publish(executed)
            except HpccError as error:
                self.counters[f"lost.{error.reason}"] += 1
            except Exception:  # noqa: BLE001 - the root of a task: one result must not end the others
                _log.exception("a result is not shared")
                self.counters["lost.internal"] += 1
            finally:
                held.close()
                self._pending_bytes -= executed.size_bytes
                self.pending -= 1
                self._queue.task_done()

    async def _publish(self, executed: Executed) -> None:
        policy = executed.sharing.policy
        if executed.is_fresh:
            run = FreshRun(
                result=result_digest(executed.record),
                guest_id=executed.record.guest_id,
                row=executed.row,
            )
            state = self._disagreements.add_fresh(executed.domain, executed.action, run)
            await self._disagreed(executed, state)
        if executed.is_fresh and policy.accepts_fresh:
            evidence = SharingEvidence(sharing=SharingClass.FRESH, row=executed.row)
            await self._put(executed, evidence)
            self._contested.pop((executed.domain.common, executed.action), None)
        elif executed.work.is_verification:
            return  # a guest for one execution that is not fresh proves nothing
        elif policy.agree:
            await self._vote(executed)
        elif policy.accepts_fresh:
            self.on_private(executed.again())

    async def _vote(self, executed: Executed) -> None:
        """Claim the result, and share it if enough voters have claimed it."""
        domain, policy = executed.domain, executed.sharing.policy
        scope = ClaimScope(tenant=domain.tenant, action=executed.action, image=domain.image)
        claim = self._signer.sign_claim(_claim_of(executed), scope)
        book = ClaimBook(await self._storage.claims(domain.tenant, domain.isolation))

        async def check(found: tuple[ResultClaim, ...]) -> tuple[ResultClaim, ...]:
            return await good_claims(found, scope, self._keys)

        # What the caller carried from workers without a common store counts like what lies here.
        for other in await check(carried_claims(executed.work.client.claims)):
            if other.voter.epoch == claim.voter.epoch and other.voter != claim.voter:
                await book.add(executed.action, other, check)
                self.counters["claims.carried"] += 1
        claims = await book.add(executed.action, claim, check)
        count = count_votes(claims, policy, isolation=domain.isolation, epoch=claim.voter.epoch)
        self.counters[f"votes.{count.state}"] += 1
        state = self._disagreements.add_claims(domain, executed.action, claims)
        await self._disagreed(executed, state)
        if count.state is VoteState.CONTESTED and policy.accepts_fresh:
            self._contested[domain.common, executed.action] = True
        elif count.state is VoteState.AGREED and count.claims[0].result == claim.result:
            evidence = SharingEvidence(
                sharing=SharingClass.AGREED, row=executed.row, claims=count.claims
            )
            await self._put(executed, evidence)
        if count.state is not VoteState.AGREED and policy.accepts_fresh:
            self.on_private(executed.again())

    async def _disagreed(self, executed: Executed, state: Agreement) -> None:
        """Count an execution of an action whose results differ, and report who is a suspect."""
        if state is Agreement.EQUAL:
            return
        domain, action = executed.domain, executed.action
        self.counters["disagreements"] += 1
        self.counters["disagreements.random"] += state is Agreement.RANDOM
        if state is Agreement.OPEN and executed.sharing.policy.accepts_fresh:
            claimants = self._disagreements.claimants(domain, action)
            self.on_private(executed.again(claimants))
        suspects, runs = self._disagreements.suspects(domain, action)
        for claim in suspects:
            fields = (
                ("action", str(action)),
                ("row", claim.row),
                ("guest", claim.guest_id),
                ("key", claim.key_id),
                ("voter", claim.voter.text),
                ("fresh_rows", " ".join(run.row for run in runs)),
            )
            await self._events.event("result-disagreement", domain.tenant.value, *fields)
            self._disagreements.named(domain, action, claim)
            self.counters["disagreements.suspects"] += 1

    async def may_verify(self, candidate: Candidate) -> bool:
        """Return whether to execute this again: it is not shared, and no other worker does it.

        A result that differs from others is executed also if one of them is shared.
        """
        domain, action = candidate.domain, candidate.action
        if not candidate.claimants and await self._is_shared(candidate):
            return False
        book = ClaimBook(await self._storage.claims(domain.tenant, domain.isolation))
        return await book.lease(action, self._signer.key_id, self._clock.now())

    async def _is_shared(self, candidate: Candidate) -> bool:
        domain = candidate.domain
        scope = ResultScope(tenant=domain.tenant, action=candidate.action, principal="")
        terms = shared_terms(domain, candidate.sharing.policy, scope)
        cache = await self._storage.shared_results(domain.tenant, domain.isolation)
        record = await self._record(cache, candidate.action, terms)
        return record is not None and await self._has_outputs(record, domain)

    async def _put(self, executed: Executed, evidence: SharingEvidence) -> None:
        """Sign the result as a shared one, and store it unless a stronger one is there."""
        domain = executed.domain
        scope = ResultScope(tenant=domain.tenant, action=executed.action, principal="")
        record = self._signer.sign(replace(executed.record, evidence=evidence), scope)
        cache = await self._storage.shared_results(domain.tenant, domain.isolation)
        old = await self._valid(cache, executed, scope)
        if (
            old is not None
            and not may_replace(record, old)
            and await self._has_outputs(old, domain)
        ):
            return
        await cache.put(executed.action, pack_entry(executed.lineage, encode_result(record)))
        self.counters[f"published.{evidence.sharing}"] += 1
        await self._note(executed)

    async def _note(self, executed: Executed) -> None:
        """Let `hpcc explain` find the action by its source. A failure costs an explanation."""
        domain, name = executed.domain, name_of(executed.work.command, executed.domain.image)
        if name is None:
            return
        try:
            cache = await self._storage.near_actions(domain.tenant, domain.isolation)
            await self._near.note(domain.tenant.value, cache, name, executed.action)
        except HpccError:
            self.counters["lost.near"] += 1

    async def _valid(
        self, cache: ActionCache, executed: Executed, scope: ResultScope
    ) -> ResultRecord | None:
        """Return the action's shared result if it serves under the tenant's policy now."""
        terms = shared_terms(executed.domain, executed.sharing.policy, scope)
        return await self._record(cache, executed.action, terms)

    async def _record(
        self, cache: ActionCache, action: Digest, terms: ResultTerms
    ) -> ResultRecord | None:
        try:
            entry, now = await cache.get(action), self._clock.now()
            _, record = await open_shared(
                entry, terms.minimum_isolation, terms, self._keys, now=now
            )
        except (NotFoundError, ReapiError, ResultError):
            return None
        return record

    async def _has_outputs(self, record: ResultRecord, domain: TrustDomain) -> bool:
        blobs = await self._storage.blobs(domain.tenant)
        return not await blobs.find_missing([output.digest for output in record.outputs])


def row_label(sharing: RouteSharing | None, *, is_fresh: bool) -> str:
    """Return the label of an execution's row: "fresh" if its result serves everybody; else ""."""
    is_shared = is_fresh and sharing is not None and sharing.policy.accepts_fresh
    return SharingClass.FRESH.value if is_shared else ""


def shared_terms(domain: TrustDomain, policy: SharingPolicy, scope: ResultScope) -> ResultTerms:
    """Return what a shared result must be to serve callers of a trust domain."""
    return ResultTerms(
        scope=scope,
        image=domain.image,
        minimum_isolation=domain.isolation,
        reuse=domain.reuse,
        sharing=policy,
    )


def _claim_of(executed: Executed) -> ResultClaim:
    record = executed.record
    return ResultClaim(
        result=result_digest(record),
        voter=Voter.parse(executed.sharing.voter),
        guest_id=record.guest_id,
        execs_before=record.guest_execs_before,
        is_overlapped=executed.is_overlapped,
        isolation=record.isolation,
        reuse=record.reuse,
        snapshot=executed.lineage.snapshot_digest,
        row=executed.row,
        made_at_ms=0,
        key_id=_NO_KEY,
    )
