"""Keeps guests warm: carries out what `PoolCore` decides, and reports events to it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Protocol

from hpcc.core import GuestMitigations, HpccError, ImageDigest, InfrastructureError
from hpcc.ports import Clock, Guest, GuestSpec, Runtime
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.core import PoolCore
from hpcc.worker.pool.decisions import (
    Boot,
    Decision,
    Grant,
    PoolLimits,
    Refuse,
    Retire,
)
from hpcc.worker.pool.ends import first_end
from hpcc.worker.pool.refusals import refusal

_log: Final = logging.getLogger(__name__)
# A scheduler that gets no report notices by the lease; a report takes at most this long.
_REPORT_SECONDS: Final = 5.0
# How long an answer waits for a dead guest to be reaped and reported.
_GONE_SECONDS: Final = 15.0


class ImageProvider(Protocol):
    """Finds prepared images."""

    async def image(self, digest: ImageDigest) -> Path:
        """Return the path of the file system image.

        Raises:
            NotFoundError: the image is not prepared here.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestShape:
    """Memory, boot limit and kernel of each guest; `by_image` has other sizes."""

    memory_mib: int
    boot_timeout_seconds: float
    by_image: Mapping[ImageDigest, int] = field(default_factory=dict)
    mitigations: GuestMitigations = GuestMitigations.AUTO

    def memory_of(self, image: ImageDigest) -> int:
        """Return the memory of a guest of this image, in MiB."""
        return self.by_image.get(image, self.memory_mib)


@dataclass(slots=True, eq=False)
class _Slot:
    """One guest, from the decision to boot it until it is gone. `guest` is None while it boots."""

    number: int
    domain: TrustDomain
    places: int
    task: asyncio.Task[None] | None = None
    guest: Guest | None = None
    failure: HpccError | None = None
    # The pool retires this guest (idle, session limit, memory pressure, drain).
    retire: asyncio.Event = field(default_factory=asyncio.Event)
    # A lease reported that this guest cannot be used any more.
    condemned: asyncio.Event = field(default_factory=asyncio.Event)
    why_condemned: str = ""
    culprit: Lease | None = None
    # Reaped, removed from the pool and reported.
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Lease:
    """The right to run one exec in a guest."""

    def __init__(
        self, slot: _Slot, execs_before: int, counts: Callable[[int], tuple[int, int]]
    ) -> None:
        """`counts` returns the guest's running and all its execs, by its number."""
        assert slot.guest is not None
        self._slot, self.guest, self.execs_before = slot, slot.guest, execs_before
        self._counts = counts
        running, _ = counts(slot.number)
        self._began_alone = running == 1

    @property
    def number(self) -> int:
        """The pool's number of the guest."""
        return self._slot.number

    @property
    def is_overlapped(self) -> bool:
        """Whether another exec had a place in the guest at any time of this lease.

        Ask before the lease ends, when the outputs have been hashed. What runs beside an exec can
        change its outputs until then.
        """
        _, execs = self._counts(self._slot.number)
        return not self._began_alone or execs != self.execs_before + 1

    @property
    def is_recalled(self) -> bool:
        """Whether the pool ended the guest, so that neither the guest nor the exec failed."""
        return self._slot.retire.is_set()

    @property
    def is_anothers_fault(self) -> bool:
        """Whether the guest was condemned because of another exec."""
        return self._slot.culprit is not None and self._slot.culprit is not self

    async def condemn(self, reason: str, *, is_culprit: bool) -> None:
        """End the guest; wait (bounded) until it is reaped and the scheduler has the report.

        An answer before that would let the scheduler route the caller to a dead guest. Without
        effect if the guest is ending already. `is_culprit`: this exec caused the end.
        """
        if not self._slot.condemned.is_set():
            self._slot.why_condemned = reason
            self._slot.culprit = self if is_culprit else None
            self._slot.condemned.set()
        try:
            async with asyncio.timeout(_GONE_SECONDS):
                await self._slot.gone.wait()
        except TimeoutError:
            _log.warning("guest %s is not gone yet", self.guest.identity.guest_id)


class GuestPool:
    """Leases guests. `on_lost` receives id and reason of each guest that died or was condemned."""

    def __init__(
        self,
        limits: PoolLimits,
        shape: GuestShape,
        runtime: Runtime,
        images: ImageProvider,
        group: asyncio.TaskGroup,
        on_lost: Callable[[str, str], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._shape, self._runtime, self._images = shape, runtime, images
        self._group, self._on_lost, self._clock = group, on_lost, clock
        self._core = PoolCore(limits)
        self._slots: dict[int, _Slot] = {}
        self._limits = limits
        self._waiting: dict[int, asyncio.Future[Lease | HpccError]] = {}
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._slot_ended = asyncio.Event()
        # Waiters that give way to all others.
        self._patient: set[int] = set()
        # Why the last guest that was started did not answer; "" if it did.
        self.boot_trouble = ""
        # Called after each event.
        self.changed: Callable[[], None] = lambda: None

    @property
    def running(self) -> int:
        return self._core.running

    @property
    def queued(self) -> int:
        return self._core.queued

    @property
    def is_awaited(self) -> bool:
        """Whether the pool ends, or somebody waits for a guest who does not give way."""
        return self._core.is_draining or bool(self._waiting.keys() - self._patient)

    def is_idle_for(self, domain: TrustDomain) -> bool:
        """Whether nothing runs or waits, and one more guest of the domain fits without an end."""
        return not self.running and not self.is_awaited and self._core.fits(domain)

    @property
    def core(self) -> PoolCore:
        """The pool's state, for those who only read it."""
        return self._core

    def numbers(self) -> dict[str, int]:
        """Return how many guests there are now, and what the pool has done since it began."""
        guests = self._core.guests
        idle = sum(g.is_idle for g in guests)
        return {"guests": len(guests), "idle": idle, **asdict(self._core.counts)}

    @property
    def has_room(self) -> bool:
        """Whether the limits allow one more guest than there is now."""
        return len(self._slots) < self._limits.capacity

    @asynccontextmanager
    async def lease(
        self, domain: TrustDomain, *, is_patient: bool = False
    ) -> AsyncGenerator[Lease]:
        """Yield a guest of the domain for one compile; it is booted if necessary.

        `is_patient`: it does not count as somebody who waits.

        Raises:
            BusyError: too many compiles wait already.
            InfrastructureError: the worker stops.
            GuestBootError: no guest of the domain could start.
            NotFoundError: the image is not prepared here.
        """
        lease = await self._acquire(domain, counts=True, is_patient=is_patient)
        try:
            yield lease
        finally:
            self._release(lease)
            self._act()

    async def prewarm(self, domain: TrustDomain) -> None:
        """Boot a guest of the domain that has run nothing; raises as `lease` does."""
        self._release(await self._acquire(domain, counts=False))
        self._act()

    def expect(self, domain: TrustDomain, count: int) -> None:
        """Start guests for compiles that a build announced, within the limits; never waits."""
        self._core.expect(domain, count, self._clock.monotonic())
        self._act()

    def close(self, seconds: float) -> None:
        """Accept nothing new, and end every guest: an idle one now, others within `seconds`.

        A later call may change the time.
        """
        self._core.drain(self._clock.monotonic(), seconds)
        self._act()

    def reopen(self) -> None:
        """Accept compiles again. Guests that were closed still end with what they run."""
        self._core.resume(self._clock.monotonic())
        self._act()

    async def drain(self, seconds: float) -> None:
        """Accept nothing new, let running compiles finish for `seconds`, end every guest."""
        self.close(seconds)
        while self._slots:
            self._slot_ended.clear()
            await self._slot_ended.wait()
        if self._timer is not None:
            self._timer.cancel()

    async def _acquire(
        self, domain: TrustDomain, *, counts: bool, is_patient: bool = False
    ) -> Lease:
        waiter = next(self._numbers)
        if is_patient:
            self._patient.add(waiter)
        answer: asyncio.Future[Lease | HpccError] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = answer
        self._notice_deaths()
        self._core.ask(waiter, domain, self._clock.monotonic(), counts=counts)
        self._act()
        try:
            given = await answer
        except asyncio.CancelledError:
            if self._waiting.pop(waiter, None) is not None:
                self._core.leave(waiter, self._clock.monotonic())
            elif not answer.cancelled() and isinstance(given := answer.result(), Lease):
                self._release(given)
            self._act()
            raise
        finally:
            self._patient.discard(waiter)
        if isinstance(given, HpccError):
            raise given
        return given

    def _release(self, lease: Lease) -> None:
        self._notice_deaths()
        self._core.release(lease.number, self._clock.monotonic())

    def _notice_deaths(self) -> None:
        """Grant no place in a guest that died just now, before its own task has run."""
        for slot in self._slots.values():
            if slot.guest is not None and slot.guest.is_lost:
                self._core.lost(slot.number, self._clock.monotonic())

    def _act(self, failure: HpccError | None = None) -> None:
        """Carry out the decisions; `failure` is the error for waiters whose boot failed."""
        todo = deque(self._core.decisions)
        self._core.decisions.clear()
        while todo:
            self._do(todo.popleft(), failure)
            todo.extend(self._core.decisions)
            self._core.decisions.clear()
        self._set_timer()
        self.changed()

    def _do(self, decision: Decision, failure: HpccError | None) -> None:
        match decision:
            case Boot(number, domain):
                places = 1 if domain.is_single_use else self._limits.vcpus
                slot = self._slots[number] = _Slot(number, domain, places)
                slot.task = self._group.create_task(self._keep(slot), name="guest")
                # A task that is cancelled before its first step could not do this itself.
                slot.task.add_done_callback(lambda _: self._over(slot))
            case Grant(waiter, number, execs_before):
                answer = self._waiting.pop(waiter)
                if answer.done():  # cancelled, and its task has not run since
                    self._core.release(number, self._clock.monotonic())
                else:
                    lease = Lease(self._slots[number], execs_before, self._core.counts_of)
                    answer.set_result(lease)
            case Refuse(waiter, why):
                answer = self._waiting.pop(waiter)
                if not answer.done():
                    answer.set_result(refusal(why, failure))
            case Retire(number):
                slot = self._slots[number]
                slot.retire.set()
                if slot.guest is None and slot.task is not None:
                    slot.task.cancel()

    def _set_timer(self) -> None:
        deadline = self._core.next_deadline
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = max(deadline - self._clock.monotonic(), 0.0)
        self._timer_at = deadline
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._core.tick(self._clock.monotonic())
        self._act()

    async def _keep(self, slot: _Slot) -> None:
        """Own one guest from boot to end, and record its failure."""
        try:
            await self._live(slot)
        except HpccError as error:
            _log.warning("guest: %s", error)
            slot.failure = error
        except Exception:  # noqa: BLE001 - the root of a task: a backend's fault must not end the worker
            _log.exception("guest failed")
            slot.failure = InfrastructureError("guest failed", reason="guest-boot")

    def _over(self, slot: _Slot) -> None:
        """Remove a guest of which nothing is left."""
        del self._slots[slot.number]
        slot.gone.set()
        self._slot_ended.set()
        if slot.failure is not None and slot.guest is None:
            if isinstance(slot.failure, InfrastructureError):
                self.boot_trouble = str(slot.failure)
            self._core.boot_failed(slot.number, self._clock.monotonic())
        else:
            self._core.ended(slot.number, self._clock.monotonic())
        self._act(slot.failure)

    async def _live(self, slot: _Slot) -> None:
        path = await self._images.image(slot.domain.image)
        spec = GuestSpec(
            image=slot.domain.image,
            image_path=path,
            memory_mib=self._shape.memory_of(slot.domain.image),
            vcpus=slot.places,
            boot_timeout_seconds=self._shape.boot_timeout_seconds,
            has_mitigations=self._shape.mitigations.are_on(slot.domain.reuse),
        )
        report: asyncio.Task[None] | None = None
        async with self._runtime.guest(spec) as guest:
            slot.guest, self.boot_trouble = guest, ""
            self._core.booted(slot.number, self._clock.monotonic())
            self._act()
            reason = await first_end(guest.lost, slot.retire, slot.condemned)
            if reason is None and slot.condemned.is_set():
                reason = slot.why_condemned
            if reason is not None:
                self._core.lost(slot.number, self._clock.monotonic())
                self._act()
                # Reported during reaping: the sooner the scheduler knows, the fewer clients dial.
                work = self._report(guest.identity.guest_id, reason)
                report = self._group.create_task(work, name="guest lost")
        if report is not None:
            await report

    async def _report(self, guest_id: str, reason: str) -> None:
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                await self._on_lost(guest_id, reason)
        except (HpccError, TimeoutError) as error:
            _log.warning("guest %s is lost and cannot be reported: %s", guest_id, error)
        except Exception:  # noqa: BLE001 - the root of a task: a report's fault must not end the worker
            _log.exception("guest %s is lost and cannot be reported", guest_id)
