"""Which page of a farm an address means, made from what the schedulers show now.

All pages of a browser share one picture. It is asked again when a page wants it and it is old: a
page that nobody looks at costs the schedulers nothing. What may be seen is decided there, by the
login; here nothing is left out of a picture, and nothing is kept of another one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from hpcc.cli.builds.parts import quoted
from hpcc.cli.web.alerts_page import alerts_page
from hpcc.cli.web.build_site import BuildsSeen, ShowsBuilds
from hpcc.cli.web.compare_page import COMPARE, compared
from hpcc.cli.web.farm_offer import farm_offer_page
from hpcc.cli.web.object_page import ADDRESS as OBJECTS
from hpcc.cli.web.object_site import FindsObjects, ObjectSite
from hpcc.cli.web.overview.cache_page import ADDRESS as CACHE
from hpcc.cli.web.overview.cache_page import cache_page
from hpcc.cli.web.overview.choosing import choice_of
from hpcc.cli.web.overview.front import FarmSeen, farm_page
from hpcc.cli.web.overview.search import FoundPlace, farm_places
from hpcc.cli.web.parts.farm_builds import ADDRESS, MAX_SEARCH, build_page, builds_page
from hpcc.cli.web.parts.farm_parts import heading, tag
from hpcc.cli.web.parts.shell import Page, footer
from hpcc.cli.web.parts.sums import Choice, Outcomes, outcomes
from hpcc.cli.web.tenant_pages import tenant_page, tenants_page
from hpcc.cli.web.worker_pages import worker_of, worker_page, workers_page
from hpcc.config.farm import Farm
from hpcc.core import CallerError, HpccError, NotFoundError
from hpcc.ports import Clock
from hpcc.routing.load import SAMPLE_SECONDS, LoadSample
from hpcc.rpc.scheduler.builds import BUILD_ID, KeptBuilds, by_build
from hpcc.rpc.scheduler.farm_picture import FarmPicture
from hpcc.rpc.scheduler.recent_events import SeenEvents
from hpcc.rpc.scheduler.worker_detail import WorkerDetail

# A picture is as old as this before it is asked again, and older for a farm of many workers: a
# scheduler sorts and sends all of them.
_LEAST_SECONDS: Final = 2.0
_WORKERS_A_SECOND: Final = 100
_MOST_SECONDS: Final = 30.0
# A login that is refused is not tried all the time.
_AFTER_ERROR_SECONDS: Final = 10.0
# Sums over builds end at a multiple of this.
_SUMS_SECONDS: Final = 10.0
# The first part of each address, and whether a name follows it.
PLACES: Final[Mapping[str, bool]] = {
    "": False,
    "workers": False,
    "worker": True,
    "tenants": False,
    "tenant": True,
    "alerts": False,
    CACHE: False,
    ADDRESS: False,
    "farm-build": True,
    OBJECTS: False,
    "object": True,
}


class Observes(ShowsBuilds, Protocol):
    """Asks the schedulers."""

    def farm(self) -> Farm:
        """Return the farm that the user is logged in to now.

        Raises:
            CallerError: there is none.
        """
        ...

    async def picture(self) -> FarmPicture:
        """Return what they show now.

        Raises:
            HpccError: there is no farm, or the login is refused.
            TimeoutError: there is no answer in time.
        """
        ...

    async def history(self) -> tuple[LoadSample, ...]:
        """Return the load of the last hour, for an operator; raises as `picture` does."""
        ...

    async def events(self) -> SeenEvents:
        """Return the last security events, for an operator; raises as `picture` does."""
        ...

    async def worker(self, worker_id: str) -> WorkerDetail:
        """Return more of one worker, for an operator; raises as `picture` does."""
        ...


class _Seen(NamedTuple):
    """What the schedulers showed."""

    picture: FarmPicture
    samples: tuple[LoadSample, ...] = ()
    events: SeenEvents | None = None


class FarmSite:
    """The pages of the farm that one user is logged in to."""

    sections: tuple[tuple[str, str], ...] = (
        ("Farm", ""),
        ("Builds", ADDRESS),
        ("Workers", "workers"),
        ("Tenants", "tenants"),
        ("Cache", CACHE),
        ("Evidence", OBJECTS),
        ("Alerts", "alerts"),
    )

    def __init__(self, observer: Observes, objects: FindsObjects, root: str, clock: Clock) -> None:
        self._observer, self._root, self._clock = observer, root, clock
        self._farm: Farm | None = None
        self._turn = asyncio.Lock()
        self._last: _Seen | HpccError | None = None
        self._ask_at = self._hour_at = float("-inf")
        self._hour: tuple[LoadSample, ...] = ()
        self._events: SeenEvents | None = None
        self._builds = BuildsSeen(observer, clock)
        self._objects = ObjectSite(objects, root, clock)
        self._worker: tuple[object, str, WorkerDetail | None] = (None, "", None)
        self._sums: tuple[int, Choice, float, KeptBuilds, Outcomes] | None = None

    @property
    def who(self) -> str:
        """The person who is logged in now; "" if nobody is."""
        farm = self._login()
        return "" if farm is None else f"{farm.principal} · {farm.tenant}"

    def _login(self) -> Farm | None:
        try:
            return self._observer.farm()
        except CallerError:
            return None

    async def page_or_none(self, rest: str, fields: Mapping[str, str]) -> Page | None:
        """Return the page of an address; None for one that has no farm's page.

        Raises:
            NotFoundError: no worker or tenant of this name is shown to this login.
        """
        place, slash, name = rest.partition("/")
        if PLACES.get(place) is not bool(slash):
            return None
        if place in {OBJECTS, "object"}:
            return await self._objects.page(name, fields, self._login())
        said = await self._seen()
        if isinstance(said, HpccError):
            return _nothing(said)
        if place in {ADDRESS, "farm-build"}:
            return await self._build_page(said.picture, name, fields)
        return await self._farm_page(said, place, name, fields)

    async def _farm_page(
        self, said: _Seen, place: str, name: str, fields: Mapping[str, str]
    ) -> Page:
        picture, root = said.picture, self._root
        match place:
            case "workers":
                return workers_page(picture, _number(fields), root)
            case "worker":
                worker = worker_of(picture, name)
                return worker_page(picture, worker, await self._detail(name), said.events, root)
            case "tenants":
                return tenants_page(picture, root, (await self._front(said, {})).sums.tenants)
            case "tenant":
                return tenant_page(picture, name, root)
            case "alerts":
                return alerts_page(picture, said.events, root)
            case "cache":
                return cache_page(await self._front(said, fields), root)
            case _:
                return farm_page(await self._front(said, fields), root)

    async def _front(self, said: _Seen, fields: Mapping[str, str]) -> FarmSeen:
        """Return what the pages with sums show. The sums are made again when there is news."""
        picture, trouble = said.picture, ""
        try:
            kept = await self._builds.builds(self._observer.farm())
        except HpccError as error:
            kept, trouble = KeptBuilds(), str(error)
        choice = choice_of(fields, kept.builds)
        now = picture.farm_at - picture.farm_at % _SUMS_SECONDS + _SUMS_SECONDS
        if self._sums is None or self._sums[:3] != (id(kept), choice, now):
            # The list is held beside its sums, so that its id stays its own.
            made = outcomes(kept.builds, choice, now)
            self._sums = id(kept), choice, now, kept, made
        return FarmSeen(picture, said.samples, kept, self._sums[4], trouble, said.events)

    async def places(self, wanted: str) -> list[FoundPlace]:
        """Return the places of the farm that fit a search; none while nothing is shown."""
        said = await self._seen()
        if isinstance(said, HpccError):
            return []
        try:
            kept = await self._builds.builds(self._observer.farm())
        except HpccError:
            kept = KeptBuilds()
        return farm_places(said.picture, by_build(kept.builds), wanted)

    async def _build_page(self, picture: FarmPicture, name: str, fields: Mapping[str, str]) -> Page:
        name, *others = name.split(f"/{COMPARE}")
        other = others[0].removeprefix("/") if others else ""
        if not _names_builds(name, others):
            raise NotFoundError("no build has this address")
        try:
            farm = self._observer.farm()
            if others:
                return await self._compare_page(farm, name, other)
            if name:
                return build_page(picture, await self._builds.build(farm, name), self._root)
            kept = await self._builds.builds(farm)
        except NotFoundError:
            raise
        except HpccError as error:
            return _nothing(error, "Builds")
        search = fields.get("q", "")[:MAX_SEARCH]
        return builds_page(picture, kept, self._root, search=search, number=_number(fields))

    async def _compare_page(self, farm: Farm, name: str, other: str) -> Page:
        """Return the comparison of a build with another; without one the builds to choose from."""
        build, where = await self._builds.build(farm, name), f"{self._root}/farm-build"
        if not other:
            found = by_build((await self._builds.builds(farm)).builds)
            return farm_offer_page(build, found, where)
        before = await self._builds.build(farm, other)
        main = compared(before.summary, build.summary, (f"{where}/{other}", f"{where}/{name}"))
        note = footer("Counts and names are what the clients say; times are their machines'.")
        return Page("Two builds", main + note, is_live=True, section="Builds")

    async def _seen(self) -> _Seen | HpccError:
        """Return what is new enough. One request at a time asks for more.

        Meanwhile the others get what there was: one scheduler that hangs is waited for ten seconds.
        """
        try:
            farm = self._observer.farm()
        except CallerError as error:
            return error
        if self._last is not None and farm == self._farm and self._turn.locked():
            return self._last
        async with self._turn:
            if farm != self._farm:
                # Another login sees other things.
                self._farm, self._last, self._hour, self._events = farm, None, (), None
                self._ask_at = self._hour_at = float("-inf")
            began = self._clock.monotonic()
            if self._last is not None and began < self._ask_at:
                return self._last
            pause = _LEAST_SECONDS
            try:
                picture = await self._observer.picture()
                self._last = _Seen(picture, *await self._lately(picture))
                pause = max(pause, len(picture.workers) / _WORKERS_A_SECOND)
            except (HpccError, TimeoutError) as error:
                late = HpccError("the schedulers gave no answer in time")
                self._last = error if isinstance(error, HpccError) else late
                pause = _AFTER_ERROR_SECONDS
            # A farm that hangs is not waited for all the time.
            ended = self._clock.monotonic()
            self._ask_at = ended + min(max(pause, ended - began), _MOST_SECONDS)
            return self._last

    async def _lately(
        self, picture: FarmPicture
    ) -> tuple[tuple[LoadSample, ...], SeenEvents | None]:
        """Return the load of the last hour and security events, for an operator.

        A member's questions would be refused.
        """
        if not picture.is_operator:
            self._hour, self._events = (), None
        elif self._clock.monotonic() >= self._hour_at:
            self._hour = await self._observer.history()
            self._events = await self._observer.events()
            self._hour_at = self._clock.monotonic() + SAMPLE_SECONDS
        return self._hour, self._events

    async def _detail(self, worker_id: str) -> WorkerDetail | None:
        """Return more of a worker that the picture has; None where nobody shows it.

        One worker is held, for as long as the picture: a browser looks at one.
        """
        async with self._turn:
            if self._worker[0] is not self._last or self._worker[1] != worker_id:
                try:
                    detail = await self._observer.worker(worker_id)
                except (HpccError, TimeoutError):  # it is gone, or a scheduler of before
                    detail = None
                self._worker = (self._last, worker_id, detail)
            return self._worker[2]


def _names_builds(name: str, others: Sequence[str]) -> bool:
    """Return whether an address after `farm-build/` names a build, or two; "" is the list."""
    if not others:
        return not name or BUILD_ID.fullmatch(name) is not None
    other = others[0].removeprefix("/")
    is_other = not others[0] or (others[0] != other and BUILD_ID.fullmatch(other) is not None)
    return len(others) == 1 and BUILD_ID.fullmatch(name) is not None and is_other


def _number(fields: Mapping[str, str]) -> int:
    page = fields.get("page", "1")
    return int(page) if re.fullmatch(r"[0-9]{1,6}", page) else 1


def _nothing(error: HpccError, title: str = "Farm") -> Page:
    """Return the page for a farm that shows nothing to this login."""
    what = "nothing to show" if isinstance(error, CallerError) else "no answer"
    remedy = "`hpcc login` logs in again, `hpcc whoami --check` asks what the scheduler says of it"
    main = (
        heading(title, "What the schedulers show to this login", tag("failed", what))
        + f'<div class="panel warn"><b>{quoted(str(error))}</b>'
        f'<span class="note">{quoted(remedy)}</span></div>'
        + footer("This page asks again by itself.")
    )
    return Page(title, main, is_live=True, section=title)
