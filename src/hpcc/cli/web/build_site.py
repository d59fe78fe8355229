"""What the pages about a farm's builds ask, and how often: a browser costs the schedulers little.

The list is asked at most every 12 seconds and each build every two, one question at a time. A
question that took long is repeated less often. Measured, a full list of 4,096 reports costs a
scheduler about 11 ms: ten operators who look at it cause 0.9 % of a core.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

from hpcc.config.farm import Farm
from hpcc.core import HpccError
from hpcc.ports import Clock
from hpcc.rpc.scheduler.builds import FarmBuild, KeptBuilds

_LIST_SECONDS: Final = 12.0
_BUILD_SECONDS: Final = 2.0
_MOST_SECONDS: Final = 30.0
# After a question that took *t*, none for this many *t*.
_PAUSES: Final = 9
_MAX_HELD: Final = 8


class ShowsBuilds(Protocol):
    """Asks the schedulers."""

    async def builds(self) -> KeptBuilds:
        """Return heads of the builds that this login may see.

        Raises:
            HpccError: no scheduler shows them.
            TimeoutError: there is no answer in time.
        """
        ...

    async def build(self, build_id: str) -> FarmBuild:
        """Return one build; raises as `builds` does."""
        ...


class _Held(NamedTuple):
    """An answer, and until when it serves."""

    answer: object
    until: float


class BuildsSeen:
    """Answers about builds, for all pages of one browser."""

    def __init__(self, observer: ShowsBuilds, clock: Clock) -> None:
        self._observer, self._clock = observer, clock
        self._farm: Farm | None = None
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._turn = asyncio.Lock()

    async def builds(self, farm: Farm) -> KeptBuilds:
        """Return the list; raises what the question raised. `farm` is the login of now."""
        answer = await self._asked(farm, "", self._observer.builds)
        assert isinstance(answer, KeptBuilds)
        return answer

    async def build(self, farm: Farm, build_id: str) -> FarmBuild:
        """Return one build; raises as `builds` does."""
        answer = await self._asked(farm, build_id, lambda: self._observer.build(build_id))
        assert isinstance(answer, FarmBuild)
        return answer

    async def _asked(self, farm: Farm, name: str, ask: Callable[[], Awaitable[object]]) -> object:
        held = self._held.get(name) if farm == self._farm else None
        # While a scheduler hangs, one request waits for it, and the others get what there was.
        if held is None or not self._turn.locked():
            held = await self._in_turn(farm, name, ask)
        if isinstance(held.answer, HpccError):
            raise held.answer.with_traceback(None)
        return held.answer

    async def _in_turn(self, farm: Farm, name: str, ask: Callable[[], Awaitable[object]]) -> _Held:
        async with self._turn:
            if farm != self._farm:
                # Another login sees other things.
                self._farm = farm
                self._held.clear()
            began = self._clock.monotonic()
            held = self._held.get(name)
            if held is None or began >= held.until:
                try:
                    answer: object = await ask()
                except HpccError as error:
                    answer = error
                except TimeoutError:
                    answer = HpccError("the schedulers gave no answer in time")
                ended = self._clock.monotonic()
                least = _BUILD_SECONDS if name else _LIST_SECONDS
                pause = min(max(_PAUSES * (ended - began), least), _MOST_SECONDS)
                held = self._held[name] = _Held(answer, ended + pause)
                while len(self._held) > _MAX_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(name)
            return held
