"""Builds as clients tell a farm of them, for tests of what keeps and shows them."""

from __future__ import annotations

from typing import Final

from hpcc.core import HpccError, NotFoundError
from hpcc.core.build_lanes import LaneRow
from hpcc.core.build_summary import Activity, BuildSummary, CauseTally, SlowCompile, Tally
from hpcc.rpc.scheduler.builds import FarmBuild, KeptBuild, KeptBuilds
from hpcc.rpc.scheduler.recent_events import SeenEvents

BEGAN_MS: Final = 1_800_000_000_000
SOURCE: Final = "0123456789abcdef"


def summary(build: str = "release-7", **changes: object) -> BuildSummary:
    """Return a build of 75 seconds: eight hits, three compiles on the farm, two here."""
    values: dict[str, object] = {
        "build": build,
        "source": SOURCE,
        "began_ms": BEGAN_MS,
        "ended_ms": BEGAN_MS + 75_000,
        "commit": "ab" * 20,
        "busy_ms": 74_000,
        "total_ms": 140_000,
        "at_once": 5,
        "kinds": (
            Tally("hit", 8, 9), Tally("farm", 3, 93_000), Tally("here", 2, 40_000),
            Tally("bypass", 1, 1),
        ),
        "causes": (
            CauseTally("missed", "inputs-changed", 3, 93_000),
            CauseTally("fallback", "guest-lost", 2, 40_000),
            CauseTally("bypass", "stdin", 1, 0),
        ),
        "phases": (Tally("farm", 0, 93_000), Tally("queue", 0, 31_000), Tally("guest", 0, 60_000)),
        "places": (Tally("w1", 3, 93_000), Tally("", 2, 40_000)),
        "slowest": (
            SlowCompile(100, 70_000, "farm", "inputs-changed", "w1", "w1-g6"),
            SlowCompile(2_000, 30_000, "here", "guest-lost", "", ""),
        ),
        "activity": tuple(Activity(n % 3, 1_400, 800, 400) for n in range(48)),
        "lanes": (
            LaneRow("w1", (100, 700, 8)), LaneRow("w1", (200, 200, 4)), LaneRow("", (50, 400, 9)),
        ),
        **changes,
    }  # fmt: skip
    if "places" in changes and "lanes" not in changes:
        values["lanes"] = ()  # a lane is at a place
    return BuildSummary(**values)  # type: ignore[arg-type]  # built by name


def kept(
    build: str = "release-7", *, tenant: str = "acme", principal: str = "ann",
    reported_at: float = 1_800_000_080.0, is_proved: bool = True, **changes: object,
) -> KeptBuild:  # fmt: skip
    """Return a report that a scheduler has."""
    return KeptBuild(
        tenant=tenant, principal=principal, client_version="1.0", reported_at=reported_at,
        summary=summary(build, **changes), is_proved=is_proved,
    )  # fmt: skip


def kept_builds(*builds: KeptBuild, **changes: object) -> KeptBuilds:
    """Return what the schedulers show of builds."""
    values: dict[str, object] = {
        "builds": builds, "since": 1_799_990_000.0, "kept": len(builds), "keep_seconds": 1_209_600,
        **changes,
    }  # fmt: skip
    return KeptBuilds(**values)  # type: ignore[arg-type]  # built by name


class ShownBuilds:
    """What the schedulers show of builds, and how often they are asked. `refusal` comes instead."""

    def __init__(self, *builds: KeptBuild, **changes: object) -> None:
        self.kept, self.refusal = kept_builds(*builds, **changes), HpccError("not now")
        self.lists = self.looks = 0
        self.is_refused = False

    async def builds(self) -> KeptBuilds:
        self.lists += 1
        if self.is_refused:
            raise self.refusal
        return self.kept

    async def build(self, build_id: str) -> FarmBuild:
        self.looks += 1
        found = tuple(b for b in self.kept.builds if b.build_id == build_id)
        if not found:
            raise NotFoundError("no build of this id is known to the farm")
        return FarmBuild(build_id=build_id, reports=found)


class NoBuilds:
    """Schedulers that got no report."""

    async def builds(self) -> KeptBuilds:
        return kept_builds()

    async def events(self) -> SeenEvents:
        return SeenEvents()

    async def build(self, build_id: str) -> FarmBuild:
        raise NotFoundError(f"no build {build_id} is known to the farm")
