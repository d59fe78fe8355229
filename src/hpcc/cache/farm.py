"""The remote half of the cache: what goes to a farm, in which order, and what happens otherwise.

It serves every kind of client (`remote.client`): a client compares compilers, plans requests and
places results. This module decides when a compile falls back, when it is not tried again for a
while, and when requests to a failing farm stop. A fallback is a local compile, unless a setting or
the tenant's policy forbids one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hpcc.cache.base.api import Done, Exec, RemoteClient
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.remote.client import (
    BadResultError,
    FarmClient,
    FarmCompile,
    FarmJob,
    FarmMoments,
    FarmPlan,
    OutputNotOursError,
    ParityAnswer,
)
from hpcc.cache.remote.fallback import permitted, refused_or_local
from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.scan.missing_includes import missing_includes
from hpcc.compilers.spec.table import Bypass
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.config.settings import RemoteSettings
from hpcc.core import (
    PACK_USED,
    Isolation,
    LocalSlots,
    RemoteFailure,
    RemoteOutcome,
    RemoteResult,
    RunHere,
    Toolchain,
    demanded,
)
from hpcc.core.basis import NO_TERMS
from hpcc.core.breaker import CircuitBreaker
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.fallback import LOCAL_SLOT, FallbackReason
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.dispatch.parity import EffectivePolicy, effective_policy

_log: Final = logging.getLogger("hpcc.daemon.farm")
BREAKER_FAILURES: Final = 3
BREAKER_SECONDS: Final = 10.0
# How long a refusal is remembered before the compile is tried again.
REFUSAL_SECONDS: Final = 30.0
_MAX_REFUSALS: Final = 4096
_MAX_DETAIL: Final = 400
# Failures with these reasons concern one compile, not the farm.
_NOT_THE_FARM: Final = frozenset(
    {"cancelled", "bad-request", "quota", "resource-exhausted", "parity", "quarantined"}
    | {"not-in-image"}
    # Local files, found before any request is sent.
    | {"input", "input-kind", "input-changed"}
)

_COLLEAGUES: Final = frozenset({"fresh", "agreed"})


class FarmBreaker:
    """Stops requests to a farm that fails repeatedly. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._breaker = CircuitBreaker(
            failures=BREAKER_FAILURES, open_seconds=BREAKER_SECONDS, tries_one=False
        )
        # The last failure, which a fallback by the breaker reports, too.
        self.why = ""

    def is_open(self) -> bool:
        """Tell whether requests are stopped now."""
        with self._lock:
            return not self._breaker.admits(self._monotonic())

    def note(self, *, worked: bool, why: str = "") -> None:
        """Record the outcome of one request; `why` is the reason of a failure."""
        with self._lock:
            self.why = why or self.why
            now = self._monotonic()
            if worked:
                self._breaker.succeeded(now)
            else:
                self._breaker.failed(now)


@dataclass(frozen=True, slots=True)
class _Target:
    """The farm of one compile: its image's compilers, and what it learns of the host's.

    `slots` is what settings, policy and parity permit if the farm is full.
    """

    farm: Farm
    image: Sequence[Toolchain] | None
    toolchain: str
    slots: LocalSlots


class FarmCache[C, J: FarmJob, P: FarmPlan]:
    """Looks up, compiles on the farm, stores. Thread-safe like its client's parts."""

    def __init__(
        self,
        remote: RemoteClient,
        client: FarmClient[C, J, P],
        counters: Counters,
        settings: RemoteSettings,
        monotonic: Callable[[], float],
        why_no_client: Callable[[], str] = str,
    ) -> None:
        self._remote, self._host = remote, client.host
        self._why_no_client = why_no_client
        self._planner, self._results, self._slots = client.planner, client.results, client.slots
        self._packs = client.packs
        self._counters, self._settings, self._monotonic = counters, settings, monotonic
        self._breaker = FarmBreaker(monotonic)
        # One tuple, so that a thread reads or replaces both together.
        self._last_policy: tuple[FarmSession | None, EffectivePolicy] | None = None
        self._refusals: BoundedMemo[bytes, tuple[str, str, float]] = BoundedMemo(_MAX_REFUSALS)

    def begin(self, compile_: C, is_cancelled: Callable[[], bool]) -> Done | Exec | RunHere | None:
        """Answer from the image's stored results or from the farm.

        Returns None if there is no farm for it. An `Exec` names the reason why the farm did not do
        the compile; the caller compiles locally, and counts a `BypassReason` if it is one for its
        own half, too. So it does for a `RunHere`, whose end it reports.
        """
        farm = self._remote.farm()
        session = self._remote.session() if farm is not None else None
        policy, is_report = self._policy(session), self._planner.is_report(compile_)
        # Without an object, nothing that was made here gets into a build.
        if farm is None or (is_report and policy.fallback == "never"):
            return None
        if trouble := self._why_no_client():
            return self.fall_back(FallbackReason.NO_CLIENT, trouble)
        parity = self._host.parity(compile_, farm, session, policy.parity, is_cancelled)
        if unlike := self._unlike(parity, is_report=is_report):
            return unlike
        try:
            job = self._planner.job(compile_, farm)
        except NotPortableError as error:
            return self._stay(error.reason, error.detail)
        if isinstance(job, Bypass):
            return Exec(job.reason)
        stored = self._stored(job, farm, session) if parity.serves_stored else None
        if stored is not None:
            return stored
        slots: LocalSlots = "off"
        if self._slots is not None:
            wanted = self._settings.local_slots
            slots = permitted(wanted, farm, policy, is_exact=parity.is_exact)
            ran_here = None if slots == "off" else self._slots.stored(job, slots)
            if ran_here is not None:
                return ran_here
        image = None if session is None else session.compilers
        target = _Target(farm, image, parity.toolchain, slots)
        return self._stopped(job.key) or self._compile(job, target, is_cancelled)

    def _unlike(self, parity: ParityAnswer, *, is_report: bool) -> Done | Exec | None:
        """Fall back if the image's compiler must not do this; else None."""
        if parity.refusal:
            return self.fall_back(FallbackReason.PARITY, parity.refusal)
        if is_report and not (parity.is_exact or parity.is_open):
            return self._stay(FallbackReason.NOT_IN_IMAGE, "")
        return None

    def _stored(self, job: J, farm: Farm, session: FarmSession | None) -> Done | None:
        """Answer with a stored result that counts by what tenant and user accept now."""
        known = session.terms if session is not None else None
        terms = (known or NO_TERMS).meet(demanded(self._settings.sharing))
        return self._results.stored(job, farm, terms)

    def fall_back(self, reason: str, message: str) -> Done | Exec:
        """Count a fallback; return an `Exec`, or the failure that `fallback = "never"` demands."""
        is_detailed = reason == FallbackReason.PARITY
        return self._fall_back(reason, message, f"{reason}: {message}" if is_detailed else reason)

    def _stay(self, reason: str, detail: str) -> Done | Exec:
        """Compile here because of what the compile is; `detail` names a file or a flag."""
        message = "this compile cannot run on the farm" + (f": {detail}" if detail else "")
        return self._fall_back(reason, message, f"{reason}: {detail}" if detail else reason)

    def _fall_back(self, reason: str, message: str, recorded: str) -> Done | Exec:
        self._counters.add(f"fallback.{reason}")
        self._results.fell_back(recorded)
        policy = self._policy(self._remote.session())
        return refused_or_local(policy, reason, message, _log) or Exec(reason)

    def _policy(self, session: FarmSession | None) -> EffectivePolicy:
        known = self._last_policy
        if known is not None and known[0] is session:
            return known[1]
        settings = self._settings
        policy = effective_policy(session, fallback=settings.fallback, parity=settings.parity)
        self._last_policy = (session, policy)
        return policy

    def _stopped(self, key: bytes) -> Done | Exec | None:
        """Fall back at once if this compile was refused lately, or the farm fails; else None."""
        refusal = self._refusals.get(key)
        if refusal is not None and self._monotonic() < refusal[2]:
            return self._stay(refusal[0], refusal[1])
        if self._breaker.is_open():
            why = self._breaker.why
            return self.fall_back(
                FallbackReason.BREAKER, f"the farm failed repeatedly ({why}); trying soon"
            )
        return None

    def _compile(
        self, job: J, target: _Target, is_cancelled: Callable[[], bool]
    ) -> Done | Exec | RunHere:
        started_ns, began_ns = time.time_ns(), time.monotonic_ns()
        is_last = False
        while True:
            try:
                plan = self._planner.plan(job, target.image, is_cancelled)
            except (NotPortableError, UncacheableError) as error:
                detail = error.detail if isinstance(error, NotPortableError) else ""
                self._refuse(job.key, error.reason, detail)
                return self._stay(error.reason, detail)
            if isinstance(plan, Bypass):
                return Exec(plan.reason)
            if plan.counter:
                self._counters.add(plan.counter)
            sent_ns = time.monotonic_ns()
            outcome = self._sent(job, plan, target, is_cancelled)
            moments = FarmMoments(began_ns, sent_ns, time.monotonic_ns())
            if isinstance(outcome, RunHere):
                return outcome
            if isinstance(outcome, RemoteFailure):
                self._breaker.note(worked=_is_farm_well(outcome), why=outcome.reason)
                return self.fall_back(outcome.reason, outcome.message)
            self._breaker.note(worked=True)
            if self._packs is not None:
                self._packs.answered(job, plan.request, target.farm, outcome)
            if outcome.exit_code == 0:
                name = f"miss.{_who(outcome)}.{_kind(outcome)}"
                made = FarmCompile(name, started_ns, target.farm.image, outcome.action, moments)
                return self._succeeded(job, plan, outcome, made)
            if is_last or not self._planner.learn(job, plan, outcome):
                return self._failed(job, plan, outcome)
            self._counters.add("closure.completed")
            is_last = True

    def _sent(
        self, job: J, plan: P, target: _Target, is_cancelled: Callable[[], bool]
    ) -> RemoteOutcome:
        """Send a request, again if the slot that it got here is not for it."""
        request = replace(plan.request, toolchain=target.toolchain)
        if self._packs is not None:
            request = self._packs.asked(job, request, target.farm)
        rule, slots = self._slots, target.slots
        if rule is None or slots == "off" or not rule.may_run(job, slots):
            return self._remote.compile(request, is_cancelled)
        asked = replace(request, may_run_here=slots)
        outcome = self._remote.compile(asked, is_cancelled)
        if not isinstance(outcome, RunHere):
            return outcome
        try:
            if self._still_permits(target) and rule.is_same(job, plan, slots, is_cancelled):
                rule.note(job, slots)
                self._results.fell_back(LOCAL_SLOT)
                return outcome
        except BaseException:  # whatever ends it, the processor is given back
            outcome.give_back()
            raise
        outcome.give_back()
        return self._remote.compile(request, is_cancelled)

    def _still_permits(self, target: _Target) -> bool:
        """Look again: while a compile waited, a login may have brought another policy."""
        session = self._remote.session()
        is_exact = session is not None and session.compilers == target.image
        wanted, policy = self._settings.local_slots, self._policy(session)
        return permitted(wanted, target.farm, policy, is_exact=is_exact) == target.slots

    def _refuse(self, key: bytes, reason: str, detail: str) -> None:
        if reason in {
            FallbackReason.DEPENDENCIES_FAILED,
            UncacheableReason.MODIFIED_DURING_COMPILE,
            UncacheableReason.MODULE_FILE,
            UncacheableReason.MODULE_STALE,
            UncacheableReason.PCH,
            UncacheableReason.PCH_STALE,
            FallbackReason.INPUT_VANISHED,
        }:
            return  # the cause is the present state of the sources, not the command
        self._refusals[key] = (reason, detail, self._monotonic() + REFUSAL_SECONDS)

    def _failed(self, job: J, plan: P, outcome: RemoteResult) -> Done | Exec:
        """Compile locally if allowed, because an injected flag or the image may be at fault."""
        failed = self._results.failed(job, plan, outcome)
        if self._policy(self._remote.session()).fallback != "never":
            return self._stay(FallbackReason.EXIT_CODE, _lacking(failed.stderr))
        self._counters.add("miss.failed")
        return failed

    def _succeeded(
        self, job: J, plan: P, outcome: RemoteResult, compiled: FarmCompile
    ) -> Done | Exec:
        try:
            done = self._results.take(job, plan, outcome, compiled)
        except BadResultError:
            return self.fall_back(FallbackReason.BAD_RESULT, "the farm's answer lacks an output")
        except NotPortableError as error:
            self._refuse(job.key, error.reason, error.detail)
            return self._stay(error.reason, error.detail)
        except OutputNotOursError as error:
            return self.fall_back(FallbackReason.OUTPUT_NOT_OURS, str(error))
        self._counters.add(compiled.outcome)
        return done


def _who(outcome: RemoteResult) -> str:
    return "engine" if outcome.isolation is Isolation.FOREIGN_UNKNOWN else "remote"


def _kind(outcome: RemoteResult) -> str:
    """Return whether a result was executed, cached for this principal, or a colleague's."""
    if outcome.pack == PACK_USED:
        return "pack"
    if not outcome.is_cached:
        return "executed"
    shared = outcome.sharing.partition("(")[0]
    return shared if shared in _COLLEAGUES else "cached"


def _lacking(stderr: bytes) -> str:
    """Return which header a guest lacked, and which line asks for it; "" without one. Hostile."""
    for missing in missing_includes(stderr):
        at, name = (b.decode("utf-8", "replace") for b in (missing.at, missing.name))
        text = f"{at}:{missing.line}: the image has no {name}"
        return "".join(c if c.isprintable() else "?" for c in text)[:_MAX_DETAIL]
    return ""


def _is_farm_well(outcome: RemoteOutcome) -> bool:
    return not isinstance(outcome, RemoteFailure) or outcome.reason in _NOT_THE_FARM
