"""Guests that are kept warm: one trust domain each, a bounded number, retired when lost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from hpcc.core import HpccError, ImageDigest, InfrastructureError
from hpcc.ports import Guest, GuestSpec, Runtime
from hpcc.rpc import BusyError
from hpcc.worker._storage import TrustDomain

_log: Final = logging.getLogger(__name__)
# A compile is short, a boot is not: come back when one of either has probably ended.
_RETRY_SECONDS: Final = 2.0


class ImageProvider(Protocol):
    """Where prepared images are."""

    async def image(self, digest: ImageDigest) -> Path:
        """Return the file system image.

        Raises:
            NotFoundError: it is not prepared here.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Bounds of a pool; `vcpus` compiles run at once in a guest."""

    max_guests: int
    vcpus: int
    memory_mib: int
    boot_timeout_seconds: float
    max_queue: int


@dataclass(slots=True, eq=False)
class Slot:
    """A guest and who uses it. `guest` is None while it boots."""

    domain: TrustDomain
    guest: Guest | None = None
    running: int = 0
    execs: int = 0
    is_retired: bool = False
    retire: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_usable(self) -> bool:
        return self.guest is not None and not self.is_retired and not self.guest.is_lost


@dataclass(slots=True, eq=False)
class _Waiter:
    domain: TrustDomain
    ready: asyncio.Future[Slot]


class GuestPool:
    """Leases guests. `on_lost` is told of each guest that died by itself."""

    def __init__(
        self,
        config: PoolConfig,
        runtime: Runtime,
        images: ImageProvider,
        group: asyncio.TaskGroup,
        on_lost: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._config, self._runtime, self._images = config, runtime, images
        self._group, self._on_lost = group, on_lost
        self._slots: list[Slot] = []
        self._waiters: list[_Waiter] = []
        self._is_closed = False

    @property
    def running(self) -> int:
        return sum(s.running for s in self._slots)

    @property
    def queued(self) -> int:
        return len(self._waiters)

    @asynccontextmanager
    async def lease(self, domain: TrustDomain) -> AsyncGenerator[Slot]:
        """Give a guest of the domain, booted if need be, for one compile.

        Raises:
            BusyError: too many wait already.
            GuestBootError: no guest of the domain could be started.
            NotFoundError: the image is not here.
        """
        slot = await self._acquire(domain)
        try:
            slot.execs += 1
            yield slot
        finally:
            slot.running -= 1
            self._match()

    async def close(self) -> None:
        """Retire every guest; the task group then waits for their ends."""
        self._is_closed = True
        for waiter in self._waiters:
            if not waiter.ready.done():
                waiter.ready.set_exception(InfrastructureError("worker stops", reason="draining"))
        self._waiters.clear()
        for slot in self._slots:
            self._retire(slot)

    async def _acquire(self, domain: TrustDomain) -> Slot:
        if self._is_closed:
            raise InfrastructureError("worker stops", reason="draining")
        if len(self._waiters) >= self._config.max_queue:
            raise BusyError("too many compiles wait here", retry_after_seconds=_RETRY_SECONDS)
        waiter = _Waiter(domain, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._match()
        try:
            return await waiter.ready
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.ready.done() and not waiter.ready.cancelled():
                if waiter.ready.exception() is None:
                    waiter.ready.result().running -= 1
                self._match()
            raise

    def _match(self) -> None:
        """Give free places to waiters, first come first served; boot what is still wanted."""
        demand: Counter[TrustDomain] = Counter()
        for waiter in list(self._waiters):
            if waiter.ready.done():
                self._waiters.remove(waiter)
                continue
            slot = self._free(waiter.domain)
            if slot is None:
                demand[waiter.domain] += 1
                continue
            slot.running += 1
            self._waiters.remove(waiter)
            waiter.ready.set_result(slot)
        if not self._is_closed:
            for domain, count in demand.items():
                self._boot_for(domain, count)

    def _free(self, domain: TrustDomain) -> Slot | None:
        fit = [
            s
            for s in self._slots
            if s.domain == domain and s.is_usable and s.running < self._config.vcpus
        ]
        return min(fit, key=lambda s: s.running, default=None)

    def _boot_for(self, domain: TrustDomain, count: int) -> None:
        coming = sum(
            self._config.vcpus for s in self._slots if s.domain == domain and s.guest is None
        )
        while coming < count:
            if len(self._slots) >= self._config.max_guests:
                # A guest of another domain makes room once it is idle; its end matches again.
                idle = next(
                    (
                        s
                        for s in self._slots
                        if s.domain != domain and s.is_usable and not s.running
                    ),
                    None,
                )
                if idle is not None:
                    self._retire(idle)
                return
            slot = Slot(domain)
            self._slots.append(slot)
            self._group.create_task(self._keep(slot), name="guest")
            coming += self._config.vcpus

    def _retire(self, slot: Slot) -> None:
        slot.is_retired = True
        slot.retire.set()

    async def _keep(self, slot: Slot) -> None:
        """Own one guest from boot to end; whatever happens is this task's to report."""
        failure: HpccError | None = None
        try:
            await self._live(slot)
        except HpccError as error:
            _log.warning("guest: %s", error)
            failure = error
        except Exception:  # noqa: BLE001 - the root of a task: a backend's fault must not end the worker
            _log.exception("guest failed")
            failure = InfrastructureError("guest failed", reason="guest-boot")
        finally:
            is_booted = slot.guest is not None
            self._slots.remove(slot)
            if failure is not None and not is_booted:
                self._fail(slot.domain, failure)
            self._match()

    async def _live(self, slot: Slot) -> None:
        path = await self._images.image(slot.domain.image)
        spec = GuestSpec(
            image=slot.domain.image,
            image_path=path,
            memory_mib=self._config.memory_mib,
            vcpus=self._config.vcpus,
            boot_timeout_seconds=self._config.boot_timeout_seconds,
        )
        async with self._runtime.guest(spec) as guest:
            slot.guest = guest
            self._match()
            reason = await _first(guest.lost, slot.retire)
            slot.is_retired = True
        if reason is not None:
            await self._on_lost(guest.identity.guest_id, reason)

    def _fail(self, domain: TrustDomain, error: HpccError) -> None:
        """Tell those that wait for the domain, unless another guest of it still serves or boots."""
        if any(s.domain == domain for s in self._slots):
            return
        for waiter in [w for w in self._waiters if w.domain == domain]:
            self._waiters.remove(waiter)
            if not waiter.ready.done():
                waiter.ready.set_exception(error)


async def _first(lost: Awaitable[str], retire: asyncio.Event) -> str | None:
    """Wait for either; return the reason when the guest was lost."""

    async def wait_lost() -> str:
        return await lost

    gone = asyncio.Task(wait_lost())
    asked = asyncio.Task(retire.wait())
    try:
        await asyncio.wait({gone, asked}, return_when=asyncio.FIRST_COMPLETED)
        return gone.result() if gone.done() else None
    finally:
        for task in (gone, asked):
            task.cancel()
        await asyncio.wait({gone, asked})
