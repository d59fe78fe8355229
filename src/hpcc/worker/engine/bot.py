"""Keeps a session with an engine, and runs its leases.

The problem: the engine counts a bot as alive while it calls, gives its leases to others when it
does not, and ends the wait of a client by leaving a lease out of an answer. Connections break,
servers restart, and one of several servers may be gone.

The rules:

- One call at a time reports all leases, and its answer says what holds (`LeaseBook`). With nothing
  to do the bot waits in a call; a busy bot calls each `busy_seconds`, and at once after an end.
- A server that does not answer is replaced by the next one, with the same session. Leases go on
  meanwhile for `lost_seconds`, or as long as the engine said that the session lasts, if that is
  less. Then they end, and a new session begins.
- An engine that refuses a call, or breaks the protocol, has ended the session, and all leases end.
- A drained bot says that it takes no leases, and finishes those that it has.

What must never happen: a lease that the engine took back, or of a session that is over, keeps a
guest; the bot calls in a loop without a pause, whatever the engine answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from hpcc.core import HpccError, InfrastructureError, IntegrityError
from hpcc.ports import Clock
from hpcc.rpc.base.errors import BusyError, DeadlineError, UnauthenticatedError, UnavailableError
from hpcc.rpc.engine.link import EngineLink
from hpcc.rpc.engine.messages import Bot, BotStatus, EngineSession, LeaseEnd
from hpcc.worker.base.engine_config import EngineConfig
from hpcc.worker.engine.book import HeldLease, LeaseBook
from hpcc.worker.engine.lease import LeaseRunner

_log: Final = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 0.5
_MAX_RETRY_SECONDS: Final = 15.0
# The least time from one call to the next, whatever the engine answers.
_LEAST_PAUSE_SECONDS: Final = 0.05
# The same for an idle bot, if the engine does not hold its calls.
_IDLE_SECONDS: Final = 0.5
_STEP_SECONDS: Final = 0.05
# How often the credential is read again.
_TOKEN_SECONDS: Final = 60.0
# A session by an engine whose clock is ahead or behind still lasts this long without answers.
_LEAST_SECONDS: Final = 5.0
# Leases that were cancelled have that long to end their guests before a new session begins.
_END_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BotIdentity:
    """What a bot says of itself in each session."""

    bot_id: str
    capacity: int
    properties: tuple[tuple[str, str], ...]


class EngineBot:
    """The bot of one engine. Belongs to one event loop; `run` does the work."""

    def __init__(
        self,
        link: EngineLink,
        leases: LeaseRunner,
        config: EngineConfig,
        identity: BotIdentity,
        clock: Clock,
        *,
        is_well: Callable[[], bool],
        token: Callable[[], str],
    ) -> None:
        """`is_well`: whether leases may be taken. `token` reads the credential; it may block."""
        self._link, self._leases, self._config = link, leases, config
        self._identity, self._clock = identity, clock
        self._is_well, self._read_token = is_well, token
        self.book = LeaseBook(identity.capacity)
        self._tasks: dict[HeldLease, asyncio.Task[None]] = {}
        self._session: EngineSession | None = None
        self._answered_at = self._read_at = float("-inf")
        self._is_ending = False
        self._hold: asyncio.Timeout | None = None
        # Whether the last call said that the bot ends; and whether the engine has heard it.
        self._is_told, self.left = False, asyncio.Event()
        # Something changed here: a call that the engine holds ends, by its limit.
        self._news = asyncio.Event()
        # Why the engine did not answer last; "" if it did.
        self.trouble = "it was not called yet"
        self.answered = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Whether there is a session, and the engine answered its last call."""
        return self._session is not None and not self.trouble

    @property
    def busy(self) -> int:
        """How many leases run, end, or have an end that the engine may not know."""
        return max(len(self.book), len(self._tasks))

    def take(self, *, is_open: bool) -> None:
        """Take leases or not, from now on."""
        self.book.is_open = is_open
        self._changed()

    def end(self) -> None:
        """Say from now on that the bot ends; `left` is set when the engine has heard it."""
        self.book.is_open, self._is_ending = False, True
        self._changed()

    def cancel(self) -> None:
        """End what runs; the engine gives the leases to others."""
        for task in self._tasks.values():
            _cancel(task)

    def _changed(self) -> None:
        self._news.set()
        if self._hold is not None and not self._hold.expired():
            with suppress(RuntimeError):  # the call is over
                self._hold.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Keep a session until cancelled. On return nothing of it runs."""
        delay = _RETRY_SECONDS
        async with asyncio.TaskGroup() as group:
            while True:
                began = self._clock.monotonic()
                try:
                    await self._live(group)
                except HpccError as error:
                    self._say(error)
                finally:
                    self._session = None
                    await self._end_all()
                if self._clock.monotonic() - began > _MAX_RETRY_SECONDS:
                    delay = _RETRY_SECONDS
                await self._clock.sleep(delay)
                delay = min(delay * 2, _MAX_RETRY_SECONDS)

    async def _live(self, group: asyncio.TaskGroup) -> None:
        """Run one session.

        Raises:
            HpccError: the session is over.
        """
        await self._refresh_token()
        asked_at = self._clock.monotonic()
        session: EngineSession | None
        try:
            # As one that takes no leases yet, so that the engine answers at once.
            bot = replace(self._bot(), status=BotStatus.UNHEALTHY)
            session = await self._link.create(bot, self._config.call_seconds)
        except (UnavailableError, DeadlineError):
            self._link.turn()
            raise
        while True:
            if session is not None:
                self._heard(session, group)
            await self._pause(asked_at, is_answered=session is not None)
            await self._refresh_token()
            asked_at = self._clock.monotonic()
            session = await self._update()

    def _heard(self, session: EngineSession, group: asyncio.TaskGroup) -> None:
        known = self._session.name if self._session is not None else session.name
        self._session, self._answered_at = session, self._clock.monotonic()
        self.trouble = ""
        self.answered.set()
        if session.name != known:
            raise IntegrityError(
                "the engine broke RWAPI: it answered with another session", reason="engine-protocol"
            )
        news = self.book.heard(session.leases)
        if self._is_told and not self.busy:
            self.left.set()
        for held in news.dropped:
            if (task := self._tasks.get(held)) is not None:
                _cancel(task)
        for held in news.begun:
            self._tasks[held] = task = group.create_task(self._work(held), name="lease")
            # A task that is cancelled before its first step could not do this itself.
            task.add_done_callback(partial(self._over, held))

    async def _work(self, held: HeldLease) -> None:
        end = await self._leases.run(held.lease)
        self.book.ended(held, end)

    def _over(self, held: HeldLease, _: asyncio.Task[None]) -> None:
        del self._tasks[held]
        if held.end is None:
            error = InfrastructureError("the worker ends what it runs", reason="draining")
            self.book.ended(held, LeaseEnd(error=error))
        self._changed()

    async def _update(self) -> EngineSession | None:
        """Report, and return the answer; None if the server did not answer, or news came first.

        Raises:
            HpccError: the session is over.
        """
        assert self._session is not None
        bot, is_idle = self._bot(), not self.book and self._may_take
        seconds = self._config.poll_seconds if is_idle else self._config.call_seconds
        try:
            if not is_idle:
                return await self._link.update(bot, self._session, seconds)
            return await self._held(bot, self._session, seconds)
        except (UnavailableError, DeadlineError, BusyError) as error:
            self._say(error)
            self._link.turn()
            if self._clock.monotonic() - self._answered_at > self._patience(self._session):
                raise
        except UnauthenticatedError:
            # The credential may have been replaced a moment ago.
            if not await self._refresh_token(is_due=True):
                raise
        return None

    async def _held(self, bot: Bot, session: EngineSession, seconds: float) -> EngineSession | None:
        """Make a call that the engine may hold; end it when something changes here."""
        if self._news.is_set():
            return None
        try:
            async with asyncio.timeout(None) as self._hold:
                return await self._link.update(bot, session, seconds)
        except TimeoutError:
            return None
        finally:
            self._hold = None

    async def _pause(self, asked_at: float, *, is_answered: bool) -> None:
        """Wait until the next call is due: at once after an end, else by how busy the bot is."""
        if not is_answered and self.trouble:
            await self._clock.sleep(_RETRY_SECONDS)
            return
        took = self._clock.monotonic() - asked_at
        is_idle = not self.book and self._may_take
        wanted = _IDLE_SECONDS - took if is_idle else self._config.busy_seconds
        if not self.book.has_news and not self._news.is_set() and wanted > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wanted):
                    await self._news.wait()
        took = self._clock.monotonic() - asked_at
        await self._clock.sleep(max(_LEAST_PAUSE_SECONDS - took, 0.0))
        self._news.clear()

    def _bot(self) -> Bot:
        self._is_told = self._is_ending
        if self._is_ending:
            status = BotStatus.TERMINATING
        else:
            status = BotStatus.OK if self._may_take else BotStatus.UNHEALTHY
        identity = self._identity
        return Bot(
            bot_id=identity.bot_id,
            status=status,
            capacity=identity.capacity,
            properties=identity.properties,
            leases=self.book.report(),
        )

    @property
    def _may_take(self) -> bool:
        return self.book.is_open and self._is_well()

    def _patience(self, session: EngineSession) -> float:
        """Return how long leases go on without an answer, in seconds."""
        if not session.expires_at:
            return self._config.lost_seconds
        # By the clock of now, less what has passed since the answer.
        passed = self._clock.monotonic() - self._answered_at
        told = session.expires_at - (self._clock.now() - passed)
        return min(self._config.lost_seconds, max(told, _LEAST_SECONDS))

    async def _refresh_token(self, *, is_due: bool = False) -> bool:
        """Read the credential again, if it is time; return whether it has changed."""
        if not self._config.credentials:
            return False
        if not is_due and self._clock.monotonic() - self._read_at < _TOKEN_SECONDS:
            return False
        self._read_at = self._clock.monotonic()
        try:
            return self._link.use_token(await asyncio.to_thread(self._read_token))
        except HpccError as error:
            _log.warning("engine: the credential cannot be read again: %s", error)
            return False

    async def _end_all(self) -> None:
        """End all leases of a session that is over; wait, bounded, until their guests are gone."""
        self.book.clear()
        self.cancel()
        deadline = self._clock.monotonic() + _END_SECONDS
        while self._tasks and self._clock.monotonic() < deadline:
            await self._clock.sleep(_STEP_SECONDS)

    def _say(self, error: HpccError) -> None:
        """Note why the engine did not answer; log it once."""
        if str(error) != self.trouble:
            _log.warning("engine %s: %s", self._link.endpoint, error)
        self.trouble = str(error)


def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task, once: a second cancel would interrupt its clean-up."""
    if not task.cancelling():
        task.cancel()
