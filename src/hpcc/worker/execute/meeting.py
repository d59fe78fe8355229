"""Keeps where the results of actions are, at the worker at which they meet.

Workers without a common store do not see each other's results and claims. A client that had an
action executed notes that at the action's meeting place, which others ask first
(`hpcc.routing.rendezvous`). What is kept here are words of callers, and only ever a reason to ask
another worker: a false one costs its reader a question.

A principal has one note for an action, so that nobody replaces a colleague's. One table holds all
notes in memory. When it is full, the tenant that has most loses its oldest.

Clients also report here which results they took from build packs. A result that they may not have
is refused and recorded, so what is in the trail as `pack` was checked by a worker.
"""

from __future__ import annotations

from typing import Final

from hpcc.core import (
    PRIVATE_ONLY,
    Digest,
    GuestReuse,
    HpccError,
    PolicyError,
    SharingPolicy,
    TenantId,
)
from hpcc.core.memo import LruMemo
from hpcc.identity.results import ResultError, check_result
from hpcc.identity.token import RouteClaims
from hpcc.reapi.claims import ResultClaim
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.packed import serves_tenant
from hpcc.reapi.result import ResultRecord, parse_result
from hpcc.reapi.signed import ResultScope, ResultTerms
from hpcc.rpc.reapi.meeting import MAX_CARRIED, MAX_NAMED, Known, Made, Use
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.rows import Caller, Lineage, audit_row
from hpcc.worker.execute.session import SessionDeps
from hpcc.worker.stores.claims import ClaimBook
from hpcc.worker.stores.entries import unpack_entry

# Of all tenants: about 40 MB. A build of 5,000 units at two people needs 10,000 / n at each of n.
_MAX_NOTES: Final = 131_072

# By principal, the latest last.
_Notes = tuple[tuple[str, str], ...]


class NoteBook:
    """Which worker has the result of an action, by tenant and in the words of its members."""

    def __init__(self, max_notes: int = _MAX_NOTES) -> None:
        self._max_notes, self._count = max_notes, 0
        self._tenants: dict[TenantId, LruMemo[Digest, _Notes]] = {}

    def add(self, tenant: TenantId, principal: str, made: Made) -> None:
        """Keep a note in place of an earlier one of the same principal."""
        notes = self._tenants.setdefault(tenant, LruMemo(self._max_notes))
        before = notes.get(made.action, ())
        others = tuple(note for note in before if note[0] != principal)[1 - MAX_NAMED :]
        self._count += not before
        notes[made.action] = (*others, (principal, made.worker))
        if self._count > self._max_notes:
            fullest = max(self._tenants, key=lambda t: len(self._tenants[t]))
            self._tenants[fullest].popitem(last=False)
            self._count -= 1

    def workers(
        self, tenant: TenantId, principal: str, action: Digest, *, is_private: bool
    ) -> tuple[str, ...]:
        """Return the workers that were noted: the principal's first, then the latest.

        `is_private`: colleagues' notes are not for this caller.
        """
        notes = self._tenants.get(tenant)
        found = (notes.use(action) if notes else None) or ()
        own = [worker for who, worker in found if who == principal]
        others = [worker for who, worker in reversed(found) if who != principal]
        return tuple(dict.fromkeys(own if is_private else [*own, *others]))


class WorkerMeeting:
    """The worker's `Meeting`."""

    def __init__(self, deps: SessionDeps) -> None:
        self._deps, self._book = deps, NoteBook()

    async def known(self, client: Client, action: Digest) -> Known:
        """Return which workers were noted, and the claims of other voters that lie here."""
        claims = client.known
        assert isinstance(claims, RouteClaims), "the session checked it"
        shared, accepted = claims.sharing, _accepted(claims, client)
        reuse = self._deps.reuse.stricter(claims.guest_reuse)
        workers = self._book.workers(
            claims.tenant,
            claims.subject,
            action,
            # With other reuse, members share each result.
            is_private=accepted.is_private and reuse is GuestReuse.PRINCIPAL,
        )
        votes = tuple[ResultClaim, ...]()
        if shared is not None and accepted.agree:
            cache = await self._deps.storage.claims(claims.tenant, self._deps.isolation)
            epoch = shared.voter.partition(":")[0]
            found = await ClaimBook(cache).read(action)
            others = [c for c in found if c.voter.epoch == epoch and c.voter.text != shared.voter]
            votes = tuple(others[-MAX_CARRIED:])
        return Known(workers, votes)

    def note(self, client: Client, made: tuple[Made, ...]) -> None:
        """Keep which workers have results, in the words of the caller."""
        claims = client.known
        assert isinstance(claims, RouteClaims), "the session checked it"
        for one in made:
            self._book.add(claims.tenant, claims.subject, one)

    async def used(self, client: Client, uses: tuple[Use, ...]) -> None:
        """See `Meeting.used`: check each result as a hit is checked, then write its row."""
        claims = client.known
        assert isinstance(claims, RouteClaims), "the session checked it"
        deps, accepted = self._deps, _accepted(claims, client)
        if accepted.is_private:
            raise PolicyError("the tenant's members share no results", reason="pack-result")
        deps.audit.require_room(claims.tenant.value)
        domain = TrustDomain.of(
            tenant=claims.tenant,
            image=claims.image,
            isolation=deps.isolation,
            reuse=deps.reuse.stricter(claims.guest_reuse),
            principal=claims.subject,
        )
        refused: ReapiError | ResultError | None = None
        for use in uses:
            started = deps.clock.now()
            try:
                record = await self._checked(use, claims, domain, accepted)
            except (ReapiError, ResultError) as error:
                fields = (("action", str(use.action)), ("reason", error.reason))
                await deps.refusal("result-refused", claims.tenant.value, *fields)
                refused = error
                continue
            row = audit_row(
                record,
                await self._lineage(domain, use.action, record),
                action=use.action,
                who=Caller.of(client, claims.tenant, claims.subject, claims.client_version),
                status="pack",
                scheduler=deps.runner.scheduler_id,
                started_at=started,
                ended_at=deps.clock.now(),
            )
            await deps.audit.append(row)
        if refused is not None:
            raise PolicyError(str(refused), reason="pack-result") from refused

    async def _checked(
        self, use: Use, claims: RouteClaims, domain: TrustDomain, accepted: SharingPolicy
    ) -> ResultRecord:
        record = parse_result(use.result)
        scope = ResultScope(tenant=domain.tenant, action=use.action, principal=domain.principal)
        terms = ResultTerms(
            scope=scope,
            image=domain.image,
            minimum_isolation=claims.minimum_isolation,
            reuse=domain.reuse,
            sharing=accepted,
        )
        await check_result(record, terms, self._deps.result_keys, now=self._deps.clock.now())
        if not serves_tenant(record, accepted):
            raise ReapiError("the result is not for everybody", reason="result-private")
        return record

    async def _lineage(self, domain: TrustDomain, action: Digest, record: ResultRecord) -> Lineage:
        """Return the lineage that the result names, if it is here; else what the result says."""
        cache = await self._deps.storage.shared_results(domain.tenant, domain.isolation)
        try:
            lineage, stored = unpack_entry(await cache.get(action))
        except HpccError:  # absent, damaged, or a store in trouble: none keeps the row away
            return _bare(record)
        return lineage if stored.lineage_digest == record.lineage_digest else _bare(record)


def _accepted(claims: RouteClaims, client: Client) -> SharingPolicy:
    """Return which colleagues' results a caller gets: by its tenant and by itself."""
    return claims.sharing.policy.meet(client.sharing) if claims.sharing else PRIVATE_ONLY


def _bare(record: ResultRecord) -> Lineage:
    """Return a lineage with what a signed result itself says."""
    return Lineage(
        input_root_digest="",
        argv=(),
        argv_digest="",
        env_digest="",
        kernel_digest=record.kernel_digest,
        vmm_digest="",
        vmm_version="",
        jailer_digest="",
        agent_digest=record.agent_digest,
        warden="",
        injected_flags=(),
        working_directory="",
    )
