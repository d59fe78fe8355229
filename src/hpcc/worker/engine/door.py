"""What a drain closes of a bot: leases are taken no more, and those it has are finished."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hpcc.worker.engine.bot import EngineBot


@dataclass(slots=True)
class NothingShared:
    """A bot owes no results to colleagues."""

    pending: int = 0


class BotDoor:
    """`Entrance` of a bot: where leases come in."""

    def __init__(self, bot: EngineBot) -> None:
        self._bot = bot

    def close(self) -> None:
        self._bot.take(is_open=False)

    def reopen(self) -> None:
        self._bot.take(is_open=True)


class BotPlaces:
    """`WorkPlaces` of a bot: its leases, from their arrival until the engine knows their end.

    The pool of guests stays open for leases that still fetch their inputs.
    """

    def __init__(self, bot: EngineBot) -> None:
        self._bot = bot
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """How many leases are not over."""
        return self._bot.busy

    @property
    def queued(self) -> int:
        """A bot takes no lease that would wait."""
        return 0

    def close(self, seconds: float) -> None:
        """End what runs after so long."""
        self.over()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._bot.cancel)

    def reopen(self) -> None:
        """Let what runs go on."""
        self.over()

    def over(self) -> None:
        """Forget the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
