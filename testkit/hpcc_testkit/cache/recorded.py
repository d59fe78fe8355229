"""Compiles of an invented build, for tests of the flight recorder and of what shows it."""

from __future__ import annotations

import random
from typing import Final

from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import Compile, PhasePart
from hpcc.cache.recorder.reading import RecordedBuild

# 2026-11-30 06:00 UTC.
AT_US: Final = 1_796_018_400_000_000
MS: Final = 1000
HOSTILE: Final = (
    "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\u202e\udcff"
)


def compile_at(
    offset_ms: int,
    took_ms: int,
    outcome: str = "miss.local",
    source: str = "/home/ann/app/a.c",
    *,
    reason: str = "",
    fallback: str = "",
    where: str = "",
    phases: tuple[PhasePart, ...] = (),
) -> Compile:
    """Return a compile that began `offset_ms` after 06:00."""
    return Compile(
        AT_US + offset_ms * MS,
        took_ms * MS,
        outcome,
        source,
        source.rpartition(".")[0] + ".o",
        reason,
        fallback,
        where,
        f"{where}-g1" if where else "",
        2048,
        0,
        "",
        phases,
    )


def earlier_build(build: str = "release-6") -> RecordedBuild:
    """Return a build before `small_build`, in which two of its compiles were hits or faster."""
    compiles = (
        compile_at(-9_000, 1, "hit.local", "/home/ann/app/net/far.cc"),
        compile_at(-8_990, 250, source="/home/ann/app/here.c", reason="new-command"),
        compile_at(-8_700, 480, source="/home/ann/app/h1.c", reason="new-command"),
        compile_at(-8_200, 350, "uncacheable", "/home/ann/app/now.c", reason="date-time"),
        compile_at(-7_800, 60, source="/home/ann/app/gone.c", reason="evicted"),
    )  # fmt: skip
    return RecordedBuild(build=build, compiles=compiles)


def small_build(build: str = "release-7") -> RecordedBuild:
    """Return a build with a compile of each kind, sorted by begin."""
    at_farm = (
        PhasePart(Phase.CLASSIFY, 0, 2 * MS),
        PhasePart(Phase.FARM, 2 * MS, 898 * MS),
        PhasePart(Phase.PLAN, 2 * MS, 50 * MS),
        PhasePart(Phase.CALL, 52 * MS, 800 * MS),
        PhasePart(Phase.QUEUE, 60 * MS, 40 * MS),
        PhasePart(Phase.GUEST, 100 * MS, 700 * MS),
        PhasePart(Phase.PLACE, 852 * MS, 48 * MS),
    )
    here = (
        PhasePart(Phase.CLASSIFY, 0, MS),
        PhasePart(Phase.COMPILE, 3 * MS, 380 * MS),
        PhasePart(Phase.STORE, 383 * MS, 17 * MS),
    )
    compiles = (
        compile_at(0, 1, "hit.local", "/home/ann/app/h1.c"),
        compile_at(1, 900, "miss.remote.executed", "/home/ann/app/net/far.cc",
                   reason="inputs-changed", where="w1", phases=at_farm),
        compile_at(2, 400, "miss.local", "/home/ann/app/here.c", reason="new-command",
                   fallback="guest-lost", phases=here),
        compile_at(3, 30, "miss.remote.cached", "/home/ann/app/shared.cc", where="w2"),
        compile_at(4, 1, "bypass", "/home/ann/app/odd.c", reason="stdin"),
        compile_at(420, 300, "uncacheable", "/home/ann/app/now.c", reason="date-time"),
        compile_at(730, 90, "miss.failed", "/home/ann/app/bad.c", reason="new-command"),
        compile_at(731, 5, "miss.abandoned", "/home/ann/app/stopped.c"),
        compile_at(732, 5, "refused", "/home/ann/app/not-here.c", reason="farm-down"),
        compile_at(905, 1, "hit.local", "/home/ann/app/h2.c"),
    )  # fmt: skip
    return RecordedBuild(build=build, compiles=compiles)


def large_build(units: int = 500, jobs: int = 32) -> RecordedBuild:
    """Return a build of so many units in so many jobs, on a farm, here, and from the cache.

    Times are always the same and have no pattern, so that compiles overlap in every way.
    """
    dice = random.Random(units * jobs)  # noqa: S311 - no secret
    free = [0] * jobs
    found = []
    for number in range(units):
        job = min(range(jobs), key=free.__getitem__)
        source = f"/home/ann/app/unit{number:04}.cc"
        began, kind = free[job] + dice.randint(0, 9), dice.randrange(10)
        took = dice.randint(40, 2_000)
        if kind < 3:
            took = dice.randint(1, 3)
            made = compile_at(began, took, "hit.local", source)
        elif kind < 8:
            wait = dice.randint(0, took // 2)
            phases = (
                PhasePart(Phase.CLASSIFY, 0, MS),
                PhasePart(Phase.FARM, MS, (took - 1) * MS),
                PhasePart(Phase.CALL, 2 * MS, (took - 4) * MS),
                PhasePart(Phase.QUEUE, 3 * MS, wait * MS),
                PhasePart(Phase.GUEST, (3 + wait) * MS, (took - 10 - wait) * MS),
            )
            made = compile_at(
                began, took, "miss.remote.executed", source, reason="new-command",
                where=f"w{number % 4}", phases=phases,
            )  # fmt: skip
        else:
            part = PhasePart(Phase.COMPILE, MS, (took - 3) * MS)
            made = compile_at(began, took, "miss.local", source, phases=(part,))
        free[job] = began + took
        found.append(made)
    compiles = sorted(found, key=lambda c: c.began_us)
    return RecordedBuild(build="large", compiles=tuple(compiles))


def hostile_build() -> RecordedBuild:
    """Return a build in which each text tries to be markup."""
    compiles = tuple(
        Compile(c.began_us, c.took_us, c.outcome, f"/p/{HOSTILE}", HOSTILE, HOSTILE, HOSTILE,
                HOSTILE, HOSTILE, 1, 0, HOSTILE, c.phases)
        for c in small_build().compiles
    )  # fmt: skip
    return RecordedBuild(build=HOSTILE, compiles=compiles, left_out=3, is_damaged=True)
