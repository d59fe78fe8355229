"""The worker's link to its scheduler: registration, heartbeats, and reports of dead guests."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from hpcc.core import HpccError, ImageDigest, ImageToolchains, Isolation, NotFoundError
from hpcc.ports import Clock, SignedHead, SignedTree, TreeMark
from hpcc.rpc.scheduler.api import (
    NO_FACTS,
    Admission,
    Beat,
    BeatAnswer,
    DrainOrder,
    DrainState,
    Registration,
    WorkerFacts,
)
from hpcc.rpc.scheduler.client import RegistryClient
from hpcc.rpc.scheduler.pulse import Pulse
from hpcc.rpc.scheduler.recent_events import SeenEvent
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.base.noted_events import NotedEvents
from hpcc.worker.base.result_key import ResultKeyFiles
from hpcc.worker.base.stores_config import parse_stores
from hpcc.worker.pool.guests import limits_of

_log: Final = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 0.5
_MAX_RETRY_SECONDS: Final = 5.0
# A compile waits for the report of its guest's death, but not for a scheduler that hangs.
_REPORT_SECONDS: Final = 2.0
# More add nothing: each report ends the generation of all before it.
_MAX_UNREPORTED: Final = 8
_REFRESH_SECONDS: Final = 1.0
# Refusals that another attempt does not change.
_FINAL: Final = frozenset(
    {
        "foreign-worker",
        "worker-certificate",
        "worker-certificate-expired",
        "worker-foreign-ca",
        "worker-revoked",
        "bad-request",
        "result-key",
        "result-key-revoked",
    }
)
# A broken stream is opened again at once, and after each failure a little later.
_REOPEN_SECONDS: Final = 0.2
_MAX_REOPEN_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """What a heartbeat reports: load, where the audit chain ends, and how far a drain is."""

    running: int
    queued: int
    anchor: SignedHead | None
    drain: DrainState = DrainState.NONE
    drain_seconds: float = 0.0
    # Makes the head of the tree over that chain, with the proof from what a scheduler holds.
    prove: Callable[[TreeMark | None], SignedTree | None] | None = None
    facts: WorkerFacts = NO_FACTS


def registration_of(
    config: WorkerConfig,
    port: int,
    certificate: bytes,
    isolation: Isolation,
    toolchains: Sequence[ImageToolchains],
) -> Registration:
    """Return what a worker says of itself, without result key and proof (`ResultKeyFiles`)."""
    return Registration(
        worker_id=config.worker_id,
        endpoint=f"{config.host}:{port}",
        certificate=certificate,
        isolation=isolation,
        images=tuple(ImageDigest(d) for d in config.image_digests),
        capacity=limits_of(config).capacity * config.vcpus,
        result_key=b"",
        result_proof=b"",
        toolchains=tuple(toolchains),
        knows_shares=True,
        knows_leases=True,
        knows_sharing=True,
        knows_verify=True,
        store=parse_stores(config.stores).name,
    )


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
        keys: ResultKeyFiles,
        on_certificates: Callable[[Sequence[bytes]], Awaitable[None]],
        on_drain: Callable[[DrainOrder | None], None] = lambda _: None,
    ) -> None:
        """`on_drain` gets the order of each answer to a heartbeat; None if there is none."""
        self._client, self._registration, self._clock = client, registration, clock
        self._keys, self._on_certificates = keys, on_certificates
        # Gets what a start waits for.
        self.progress: Callable[[str], None] = lambda _: None
        # Why the scheduler did not answer last; "" if it did.
        self.trouble = ""
        self._state, self._on_admission = state, on_admission
        self._generation = 0
        self._lease_seconds = 0.0
        self._pulse: Pulse | None = None
        self._beat_lock = asyncio.Lock()
        # Lost guests that the scheduler has not acknowledged, with the reasons.
        self._unreported: deque[tuple[str, str]] = deque(maxlen=_MAX_UNREPORTED)
        self._admission: Admission | None = None
        self._refresh_lock = asyncio.Lock()
        # The registration has changed since the scheduler accepted it.
        self._is_changed = False
        self._refreshed_at = float("-inf")
        # When a scheduler last had this worker's load and the end of its trail.
        self.answered_at: float | None = None
        self._on_drain = on_drain
        # What the schedulers hold of the tree over this worker's trail, by the last answer.
        self._held: TreeMark | None = None
        # The events of the trail, and up to which one the stream has carried them.
        self.noted = NotedEvents()
        self._told = 0
        # The pause before the next heartbeat, and whether there shall be none.
        self._pause: asyncio.Timeout | None = None
        self._is_hurried = False

    @property
    def is_up(self) -> bool:
        """Whether the stream of heartbeats is open."""
        return self._pulse is not None

    async def register(self) -> Admission:
        """Register; retry until it works, because a scheduler may start after its workers.

        Raises:
            PolicyError, CallerError: the scheduler refuses this worker.
        """
        delay = _RETRY_SECONDS
        while True:
            try:
                return await self._register_once()
            except HpccError as error:
                if error.reason in _FINAL:
                    raise
                _log.warning("cannot register: %s", error)
                self.trouble = str(error)
                self.progress(f"registering with the scheduler: {error}")
                await self._clock.sleep(delay)
                delay = min(delay * 2, _MAX_RETRY_SECONDS)

    async def _register_once(self) -> Admission:
        # A scheduler that does not know this worker continues its present generation, unless
        # that generation ended by a loss that no scheduler has heard of.
        generation = 0 if self._unreported else self._generation
        registration = self._registration
        admission = await self._client.register(replace(registration, generation=generation))
        # What was learned during the call, or before a refusal, is registered next time.
        self._is_changed = self._registration is not registration
        # A guest may have died meanwhile: an older generation never comes back.
        is_continued = generation != 0
        self._generation = max(admission.generation, self._generation if is_continued else 0)
        if not generation:
            # A new generation ends all earlier ones.
            self._unreported.clear()
        self._admission = admission
        self._on_admission(admission)
        self._keys.admitted(registration)
        return admission

    async def _register_changes(self) -> None:
        """Register what has changed; if that fails, it is tried again with the next heartbeat.

        Heartbeats go on, so the earlier registration stays in force.
        """
        try:
            self._lease_seconds = (await self._register_once()).lease_seconds
        except HpccError as error:
            _log.warning("cannot register what has changed: %s", error)

    def learned(self, toolchains: ImageToolchains) -> None:
        """Add an image's compilers to the registration; the next heartbeat registers again."""
        known = self._registration.toolchains
        rest = tuple(t for t in known if t.image != toolchains.image)
        self._registration = replace(self._registration, toolchains=(*rest, toolchains))
        self._is_changed = True

    async def run(self, lease_seconds: float) -> None:
        """Send heartbeats until cancelled; register again if the scheduler has forgotten us.

        When the stream breaks, another is opened at once, with any scheduler that answers.
        """
        failures, self._lease_seconds = 0, lease_seconds
        try:
            while True:
                try:
                    self._is_hurried = False
                    await self._report_rest()
                    self._note_drain()
                    if self._is_changed:
                        await self._register_changes()
                    await self._renew()
                except NotFoundError:
                    self._lease_seconds = (await self.register()).lease_seconds
                except HpccError as error:
                    _log.warning("heartbeat: %s", error)
                    self.trouble = str(error)
                    pause = min(_REOPEN_SECONDS * 2**failures, _MAX_REOPEN_SECONDS)
                    failures = min(failures + 1, 10)
                    # Thousands of workers can lose their scheduler at the same moment.
                    await self._clock.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                else:
                    failures, self.trouble = 0, ""
                    await self._wait(self._lease_seconds / 4)
        finally:
            self._close_pulse()

    async def _wait(self, seconds: float) -> None:
        """Wait until the next heartbeat is due or the stream has ended."""
        pulse = self._pulse
        if pulse is None or self._is_hurried:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds) as self._pause:
                await pulse.wait_ended()
            if self._pulse is pulse:
                self._close_pulse()

    def hurry(self) -> None:
        """Send the next heartbeat now, because something has changed."""
        self._is_hurried = True
        if self._pause is not None and not self._pause.expired():
            with suppress(RuntimeError):  # the pause is over
                self._pause.reschedule(asyncio.get_running_loop().time())

    def _note_drain(self) -> None:
        """Register whether the worker takes compiles, if that has changed."""
        is_draining = self._state().drain is not DrainState.NONE
        if is_draining is not self._registration.is_draining:
            self._registration = replace(self._registration, is_draining=is_draining)
            self._is_changed = True

    async def refresh_keys(self) -> bool:
        """Fetch the signing keys; return False if they were fetched less than a second ago.

        Called for tokens with unknown keys: a client that invents such tokens causes one request
        per second. Concurrent callers share one answer; otherwise each would wait for a scheduler
        that hangs.
        """
        asked_at = self._clock.monotonic()
        async with self._refresh_lock:
            if self._refreshed_at > asked_at:
                return True
            if asked_at - self._refreshed_at < _REFRESH_SECONDS:
                return False
            try:
                await self._renew()
            except HpccError as error:
                _log.warning("cannot ask for signing keys: %s", error)
            finally:
                self._refreshed_at = self._clock.monotonic()
            return True

    async def _renew(self) -> None:
        answer = await self._answer()
        # A report of a lost guest may have raised the generation meanwhile.
        self._generation = max(self._generation, answer.generation)
        self._lease_seconds = answer.lease_seconds or self._lease_seconds
        self._on_drain(answer.drain)
        self._held = answer.tree or self._held
        if answer.certificates:
            await self._on_certificates(answer.certificates)
        if answer.replace_result_key:
            await self._replace_result_key(answer.replace_result_key)
        known = self._admission
        if known is not None and answer.token_keys and answer.token_keys != known.token_keys:
            self._admission = replace(known, token_keys=answer.token_keys)
            self._on_admission(self._admission)

    async def _replace_result_key(self, kid: str) -> None:
        if await asyncio.to_thread(self._keys.make_next, kid):
            self._register_key()

    def key_signs(self) -> None:
        """Register that the result key which was announced signs now."""
        self._register_key()

    def _register_key(self) -> None:
        self._registration = self._keys.put_into(self._registration)
        self._is_changed = True

    async def _answer(self) -> BeatAnswer:
        async with self._beat_lock:
            if self._pulse is None:
                self._pulse, self._told = self._client.pulse(), 0
            noted = self.noted.after(self._told)
            try:
                answer = await self._pulse.beat(self._beat(tuple(one.event for one in noted)))
            except BaseException:
                # After any error: a late answer would be taken for the answer to the next beat.
                self._close_pulse()
                raise
            self.answered_at = self._clock.monotonic()
            self._told = noted[-1].number if noted else self._told
            return answer

    def _close_pulse(self) -> None:
        pulse, self._pulse = self._pulse, None
        if pulse is not None:
            pulse.close()

    def _beat(self, events: tuple[SeenEvent, ...]) -> Beat:
        state = self._state()
        return Beat(
            worker_id=self._registration.worker_id,
            generation=self._generation,
            running=state.running,
            queued=state.queued,
            anchor=state.anchor,
            drain=state.drain,
            drain_seconds=state.drain_seconds,
            tree=state.prove(self._held) if state.prove is not None else None,
            facts=state.facts,
            events=events,
        )

    async def guest_lost(self, guest_id: str, reason: str) -> None:
        """Report at once and wait briefly for the answer; on failure retry with each heartbeat."""
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                await self._report(guest_id, reason)
        except (HpccError, TimeoutError) as error:
            _log.warning("cannot report a lost guest yet: %s", error)
            self._unreported.append((guest_id, reason))

    async def _report_rest(self) -> None:
        while self._unreported:
            await self._report(*self._unreported[0])
            self._unreported.popleft()

    async def _report(self, guest_id: str, reason: str) -> None:
        self._generation = await self._client.sandbox_lost(
            worker_id=self._registration.worker_id,
            generation=self._generation,
            guest_id=guest_id,
            reason=reason,
        )

    async def leave(self) -> None:
        """Deregister; a failure is only logged, because the lease ends by itself."""
        try:
            await self._client.deregister(self._registration.worker_id)
        except HpccError as error:
            _log.info("cannot deregister: %s", error)
