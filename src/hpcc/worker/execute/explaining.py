"""A session that also tells why an action of the caller missed: `hpcc explain` on a farm.

Problem: Ann's compile misses although a colleague compiled the same file. What she gets to know
must not be more than she could find out by compiling, and nothing of what is private to others.

Rule: the worker answers about an action of which it has a result that the caller may get: the
caller's own, or one that serves the tenant. It compares the caller's own action with shared ones
only, and by what the caller accepts. It names inputs, outputs and sections of the caller's own
result. An audit row with the status `explain` is written before the answer.

Example: the answer to Ann is that config.h differs from the newest shared compile of src/a.c, and
not who made that. After a disagreement she learns that two fresh guests gave another object than
hers, not whose guests those were.

What must never happen: an action is explained to a principal who could not get its result.
"""

from __future__ import annotations

import asyncio
from typing import Final

from hpcc.core import Digest, HpccError, NotFoundError
from hpcc.identity.token import RouteClaims
from hpcc.reapi.agreement import result_digest
from hpcc.reapi.result import ResultRecord
from hpcc.rpc.base.errors import BusyError
from hpcc.rpc.reapi.explanation import (
    ALL_RESULTS,
    MAX_FLAGS,
    MAX_OUTPUTS,
    MAX_PATHS,
    Decision,
    Explanation,
    NearAction,
    ResultDifference,
)
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.rows import Lineage
from hpcc.worker.execute.disagreement import Agreement
from hpcc.worker.execute.session import SessionDeps, WorkerSession
from hpcc.worker.execute.work import read_action
from hpcc.worker.explain.limit import QuestionLimit
from hpcc.worker.explain.near import OwnAction, find_nearest
from hpcc.worker.explain.sections import differing_section

# Objects of which a section is looked for; both are in memory.
_MAX_OBJECT_BYTES: Final = 16 << 20
# A shared store may be slow, and a person waits.
_SECONDS: Final = 8.0
_Found = tuple[Lineage, ResultRecord]
_DECISIONS: Final = {
    Agreement.OPEN: Decision.OPEN,
    Agreement.REPEATED: Decision.REPEATED,
    Agreement.RANDOM: Decision.RANDOM,
}


class ExplainingSession(WorkerSession):
    """A `WorkerSession` that explains."""

    def __init__(
        self, deps: SessionDeps, claims: RouteClaims, client: Client, questions: QuestionLimit
    ) -> None:
        super().__init__(deps, claims, client)
        self._questions = questions

    async def explain(self, action: Digest) -> Explanation:
        """Tell why an action missed, after the caller's audit row was written.

        Raises:
            NotFoundError: there is no result of it that the caller may get.
            BusyError: this principal asks too often.
            InfrastructureError: store or audit failed.
        """
        clock, started = self._deps.clock, self._deps.clock.now()
        try:
            self._questions.count(self.tenant, self._claims.subject, clock.monotonic())
        except BusyError as error:
            await self._refused(action, error.reason)
            raise
        async with self._questions.turn:
            return await self._explained(action, started)

    async def _explained(self, action: Digest, started: float) -> Explanation:
        own = await self._of(action, is_shared=False)
        shared = None if self._sharing.is_private else await self._of(action, is_shared=True)
        known = own or shared
        if known is None:
            await self._refused(action, "explain-unknown")
            raise NotFoundError("no result of this action for you here", reason="explain-unknown")
        # What is left on a full disk is for rows of compiles.
        self._deps.audit.require_room(self.tenant.value)
        lineage, record = known
        await self._deps.audit.append(self._row("explain", action, record, lineage, started))
        mine = own[1] if own else None
        ours = shared[1] if shared else None
        nearest = difference = None
        if not self._sharing.is_private:
            if mine is not None and ours is None:
                nearest = await self._nearest(action)
            difference = await self._difference(action, mine, ours)
        return Explanation(
            shared=ours.evidence.text if ours is not None and ours.evidence else "",
            accepts=self._accepts,
            difference=difference,
            nearest=nearest,
        )

    @property
    def _accepts(self) -> str:
        """What the caller gets of colleagues' results."""
        if not self._domain.principal:
            return ALL_RESULTS  # members share guests, or each guest ends after one compile
        return "" if self._sharing.is_private else self._sharing.text

    async def _refused(self, action: Digest, reason: str) -> None:
        fields = (
            ("action", str(action)), ("principal", self._claims.subject), ("reason", reason),
        )  # fmt: skip
        await self._deps.refusal("explain-refused", self.tenant.value, *fields)

    async def _of(self, action: Digest, *, is_shared: bool) -> _Found | None:
        """Return the caller's own result of an action, or the tenant's; None without one."""
        storage, domain = self._deps.storage, self._domain
        cache = (
            await storage.shared_results(domain.tenant, domain.isolation)
            if is_shared
            else await storage.actions(domain)
        )
        try:
            return await self._opened(cache, action, is_shared=is_shared)
        except NotFoundError:
            return None

    async def _nearest(self, action: Digest) -> NearAction | None:
        domain, storage = self._domain, self._deps.storage
        blobs = await storage.blobs(self.tenant)

        async def shared(other: Digest) -> ResultRecord:
            cache = await storage.shared_results(domain.tenant, domain.isolation)
            return (await self._opened(cache, other, is_shared=True))[1]

        async def read(other: Digest) -> OwnAction:
            return OwnAction(*await read_action(blobs, other))

        try:
            async with asyncio.timeout(_SECONDS):
                cache = await storage.near_actions(domain.tenant, domain.isolation)
                own = action, await read(action)
                found = await find_nearest(
                    own, domain.image, cache, blobs, shared=shared, read=read
                )
        except (HpccError, TimeoutError):
            return None  # the inputs are gone, or the store is away
        if found is None:
            return None
        difference, record = found
        paths = difference.paths
        return NearAction(
            at=difference.at,
            sharing=record.evidence.text if record.evidence else "",
            is_other_directory=difference.is_other_directory,
            is_other_environment=difference.is_other_environment,
            flags=difference.flags[:MAX_FLAGS],
            is_reordered=difference.is_reordered,
            paths=paths[:MAX_PATHS],
            more_paths=len(paths[MAX_PATHS:]),
            equal=difference.equal,
            only_here=difference.only_here,
            only_there=difference.only_there,
        )

    async def _difference(
        self, action: Digest, mine: ResultRecord | None, ours: ResultRecord | None
    ) -> ResultDifference | None:
        """Return what is known of executions that gave something else; None if all are equal."""
        if self._deps.sharing is None:
            return None
        state, expected = self._deps.sharing.standing(self._domain, action)
        if state is Agreement.EQUAL:
            return None
        outputs: tuple[str, ...] = ()
        section = ""
        if mine is not None and ours is not None:
            outputs = _differing(mine, ours)
            section = await self._section(outputs, mine, ours)
        return ResultDifference(
            decision=_DECISIONS[state],
            is_other=bool(expected) and mine is not None and result_digest(mine) != expected,
            outputs=outputs[:MAX_OUTPUTS],
            section=section,
        )

    async def _section(
        self, outputs: tuple[str, ...], mine: ResultRecord, ours: ResultRecord
    ) -> str:
        """Return the section in which the first output that differs does."""
        digests = [
            {o.path: o.digest for o in record.outputs if not o.is_directory}
            for record in (mine, ours)
        ]
        path = next((p for p in outputs if all(p in table for table in digests)), None)
        if path is None or any(t[path].size_bytes > _MAX_OBJECT_BYTES for t in digests):
            return ""
        try:
            first, second = [(await self.get(table[path])).data for table in digests]
        except NotFoundError:
            return ""
        return await asyncio.to_thread(differing_section, first, second)


def _differing(mine: ResultRecord, ours: ResultRecord) -> tuple[str, ...]:
    """Return names of the caller's outputs and streams that the shared result has otherwise."""
    there = {o.path: (o.digest, o.is_executable) for o in ours.outputs}
    names = [o.path for o in mine.outputs if there.get(o.path) != (o.digest, o.is_executable)]
    names += ["stdout"] if mine.stdout != ours.stdout else []
    names += ["stderr"] if mine.stderr != ours.stderr else []
    return tuple(names)
