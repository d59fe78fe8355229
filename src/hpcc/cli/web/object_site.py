"""Which object an address means, and how often workers are asked for one.

One question at a time, and none sooner than a second after the last one ended: to look at an object
fetches its outputs, and the worker's trail gets a row.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from hpcc.cli.base.farm_object import FarmObject
from hpcc.cli.web.object_page import MAX_ACTION_CHARS, object_form, object_page
from hpcc.cli.web.parts.shell import Page
from hpcc.core import CallerError, Digest, HpccError, NotFoundError
from hpcc.ports import Clock

_NAME: Final = re.compile(r"([0-9a-f]{64})-([0-9]{1,13})")
_LEAST_SECONDS: Final = 1.0
# Loading a page again soon shows what was seen.
_HELD_SECONDS: Final = 10.0


class FindsObjects(Protocol):
    """Asks workers."""

    async def object(self, action: Digest) -> FarmObject:
        """Return one object; see `FarmObjects.object`."""
        ...


class _Seen(NamedTuple):
    action: Digest
    answer: FarmObject | HpccError
    at: float
    until: float
    login: object


class ObjectSite:
    """The pages about objects."""

    def __init__(self, objects: FindsObjects, root: str, clock: Clock) -> None:
        self._objects, self._root, self._clock = objects, root, clock
        self._turn = asyncio.Lock()
        self._seen: _Seen | None = None
        self._ask_at = float("-inf")

    async def page(self, name: str, fields: Mapping[str, str], login: object) -> Page:
        """Return the page for an address. `login` is the one of now: another sees other things.

        Raises:
            NotFoundError: no page has this address.
        """
        said = fields.get("action", "").strip()[:MAX_ACTION_CHARS]
        if name:
            match = _NAME.fullmatch(name)
            if match is None:
                raise NotFoundError("no object has this address")
            said = f"{match[1]}/{match[2]}"
        if not said:
            return object_form(self._root)
        try:
            action = Digest.parse(said)
            found, at = await self._looked(action, login)
        except HpccError as error:
            return object_form(self._root, said, str(error))
        return object_page(found, self._root, at)

    async def _looked(self, action: Digest, login: object) -> tuple[FarmObject, float]:
        async with self._turn:
            seen, now = self._seen, self._clock.monotonic()
            is_held = seen is not None and now < seen.until and seen.login == login
            if seen is None or not is_held or seen.action != action:
                if now < self._ask_at:
                    raise CallerError("one question a second: load the page again")
                seen = self._seen = await self._ask(action, login)
                self._ask_at = self._clock.monotonic() + _LEAST_SECONDS
        if isinstance(seen.answer, HpccError):
            raise seen.answer.with_traceback(None)
        return seen.answer, seen.at

    async def _ask(self, action: Digest, login: object) -> _Seen:
        answer: FarmObject | HpccError
        try:
            answer = await self._objects.object(action)
        except HpccError as error:
            answer = error
        except TimeoutError:
            answer = HpccError("the farm gave no answer in time")
        until = self._clock.monotonic() + _HELD_SECONDS
        return _Seen(action, answer, self._clock.now(), until, login)
