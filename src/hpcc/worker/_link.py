"""The worker's tie to its scheduler: registered, alive, and quick to report a dead guest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hpcc.core import HpccError, NotFoundError
from hpcc.ports import Clock, SignedHead
from hpcc.rpc import Admission, Beat, Registration, RegistryClient

_log: Final = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 0.5
_MAX_RETRY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """What a heartbeat tells: load, and where the audit chain ends."""

    running: int
    queued: int
    anchor: SignedHead | None


class SchedulerLink:
    """Registers, then renews the lease until cancelled."""

    def __init__(
        self,
        client: RegistryClient,
        registration: Registration,
        clock: Clock,
        *,
        state: Callable[[], LinkState],
        on_admission: Callable[[Admission], None],
    ) -> None:
        self._client, self._registration, self._clock = client, registration, clock
        self._state, self._on_admission = state, on_admission
        self._generation = 0

    async def register(self) -> Admission:
        """Register, trying until it works; a scheduler may start after its workers.

        Raises:
            PolicyError, CallerError: the scheduler refuses this worker.
        """
        delay = _RETRY_SECONDS
        while True:
            try:
                admission = await self._client.register(self._registration)
            except HpccError as error:
                if error.reason in {
                    "bad-secret",
                    "bad-request",
                    "result-key",
                    "result-key-revoked",
                }:
                    raise
                _log.warning("cannot register: %s", error)
                await self._clock.sleep(delay)
                delay = min(delay * 2, _MAX_RETRY_SECONDS)
            else:
                self._generation = admission.generation
                self._on_admission(admission)
                return admission

    async def run(self, lease_seconds: float) -> None:
        """Send heartbeats until cancelled; a scheduler that forgot us is told again."""
        while True:
            await self._clock.sleep(lease_seconds / 4)
            state = self._state()
            beat = Beat(
                worker_id=self._registration.worker_id,
                generation=self._generation,
                running=state.running,
                queued=state.queued,
                anchor=state.anchor,
            )
            try:
                self._generation = (await self._client.heartbeat(beat)).generation
            except NotFoundError:
                lease_seconds = (await self.register()).lease_seconds
            except HpccError as error:
                _log.warning("heartbeat: %s", error)

    async def guest_lost(self, guest_id: str, reason: str) -> None:
        """Report at once; a scheduler that does not answer finds out by the lease."""
        try:
            self._generation = await self._client.sandbox_lost(
                worker_id=self._registration.worker_id,
                generation=self._generation,
                guest_id=guest_id,
                reason=reason,
            )
        except HpccError as error:
            _log.warning("cannot report a lost guest: %s", error)

    async def leave(self) -> None:
        try:
            await self._client.deregister(self._registration.worker_id)
        except HpccError as error:
            _log.info("cannot deregister: %s", error)
