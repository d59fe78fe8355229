"""`hpcc farm builds` and `hpcc farm build`: what clients told the farm of their builds."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import CallerError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcc.core.build_lanes import LaneRow
    from hpcc.core.build_summary import BuildSummary
    from hpcc.rpc.scheduler.builds import FarmBuild, KeptBuilds

FORMAT = 1
_BAR_ENDS = ("as-place", "instead", "failed")


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the actions of this module to `hpcc farm`."""
    builds = actions.add_parser(
        "builds", help="list the builds that clients told the farm of", description=_builds.__doc__
    )
    builds.add_argument(
        "--json", action="store_true", help="print one JSON document (docs/spec/farm-builds.md)"
    )
    builds.set_defaults(handler=_builds)
    build = actions.add_parser("build", help="show one of these builds", description=_build.__doc__)
    build.add_argument("build", metavar="ID", help="the id that `hpcc farm builds` lists")
    build.add_argument(
        "--json", action="store_true", help="print one JSON document (docs/spec/farm-builds.md)"
    )
    build.add_argument(
        "--compare", metavar="OTHER", help="show what changed since the build of this id"
    )
    build.set_defaults(handler=_build)


def _builds(args: argparse.Namespace) -> int:
    """List the builds that clients told the farm of: your tenant's; of all tenants for operators.

    Schedulers keep them in memory. Counts are what the clients say.
    """
    from hpcc.rpc.scheduler.builds import by_build

    kept = asyncio.run(_asked())
    found = by_build(kept.builds)
    if args.json:
        emit(json.dumps(builds_document(kept, found), indent=1, sort_keys=True))
        return 0
    for line in builds_lines(kept, found):
        emit(line)
    return 0


def _build(args: argparse.Namespace) -> int:
    """Show one build: how its compiles ended, why they were not served, where they ran."""
    from hpcc.rpc.scheduler.builds import BUILD_ID

    wanted = [args.build] if args.compare is None else [args.compare, args.build]
    if not all(map(BUILD_ID.fullmatch, wanted)):
        raise CallerError("an id has 32 digits: `hpcc farm builds` lists them")
    *others, build = asyncio.run(_asked_some(wanted))
    if others:
        _show_comparison(others[0].summary, build.summary, is_json=args.json)
        return 0
    if args.json:
        emit(json.dumps(build_document(build), indent=1, sort_keys=True))
        return 0
    for line in build_lines(build):
        emit(line)
    return 0


def _show_comparison(before: BuildSummary, now: BuildSummary, *, is_json: bool) -> None:
    from hpcc.cli.builds.compare_text import comparison_document, comparison_lines

    if is_json:
        emit(json.dumps(comparison_document(before, now), indent=1, sort_keys=True))
        return
    for line in comparison_lines(before, now):
        emit(line)


async def _asked() -> KeptBuilds:
    from hpcc.cli.base.farm_observer import FarmObserver
    from hpcc.ports import SystemClock

    async with FarmObserver(Paths.from_env(os.environ), SystemClock()) as observer:
        return await observer.builds()


async def _asked_some(build_ids: Sequence[str]) -> list[FarmBuild]:
    from hpcc.cli.base.farm_observer import FarmObserver
    from hpcc.ports import SystemClock

    async with FarmObserver(Paths.from_env(os.environ), SystemClock()) as observer:
        try:
            return [await observer.build(build_id) for build_id in build_ids]
        except NotFoundError as error:
            raise NotFoundError(
                f"{error}: `hpcc farm builds` lists those that you may see", reason=error.reason
            ) from error


def builds_document(kept: KeptBuilds, found: tuple[FarmBuild, ...]) -> dict[str, Any]:
    """Return the document of `hpcc farm builds --json`."""
    return {
        "format": FORMAT,
        "since": kept.since,
        "keep_seconds": kept.keep_seconds,
        "displaced": kept.displaced,
        "left_out": max(kept.kept - len(kept.builds), 0),
        "silent_schedulers": kept.silent,
        "builds": [_head(build) for build in found],
    }


def build_document(build: FarmBuild) -> dict[str, Any]:
    """Return the document of `hpcc farm build --json`."""
    summary = build.summary
    return {
        "format": FORMAT,
        **_head(build),
        "reports_left_out": build.left_out,
        "silent_schedulers": build.silent,
        "busy_seconds": summary.busy_ms / 1000,
        "total_seconds": summary.total_ms / 1000,
        "at_once": summary.at_once,
        "seconds": {t.word: t.took_ms / 1000 for t in summary.kinds},
        "phases": {t.word: t.took_ms / 1000 for t in summary.phases},
        "places": [
            {"worker": t.word or None, "compiles": t.compiles, "seconds": t.took_ms / 1000}
            for t in summary.places
        ],
        "lanes": [_lane(lane, summary.ended_ms - summary.began_ms) for lane in summary.lanes],
        "not_in_lanes": summary.off_lanes,
    }  # fmt: skip


def _lane(lane: LaneRow, took_ms: int) -> dict[str, Any]:
    from hpcc.core.build_lanes import PARTS

    part_seconds = took_ms / 1000 / PARTS
    return {
        "worker": lane.where or None,
        "bars": [
            {"began_after_seconds": round(bar.began * part_seconds, 3),
             "seconds": round((bar.ended - bar.began) * part_seconds, 3),
             "compiles": bar.compiles, "end": _BAR_ENDS[bar.end]}
            for bar in lane.bars()
        ],
    }  # fmt: skip


def _head(build: FarmBuild) -> dict[str, Any]:
    last, summary = build.last, build.summary
    return {
        "id": build.build_id,
        "tenant": last.tenant,
        "principal": last.principal,
        "is_principal_proved": last.is_proved,
        "reported_at": last.reported_at,
        "reports": len(build.reports),
        # What follows is what the client says.
        "build": summary.build,
        "client_version": last.client_version,
        "commit": summary.commit,
        "began_at": summary.began_ms / 1000,
        "ended_at": summary.ended_ms / 1000,
        "compiles": summary.compiles,
        "counts": {t.word: t.compiles for t in summary.kinds},
        "left_out": summary.left_out,
        "is_damaged": summary.is_damaged,
        "causes": [
            {"family": c.family, "reason": c.word, "compiles": c.compiles,
             "seconds": c.took_ms / 1000}
            for c in summary.causes
        ],
        "slowest": [
            {"began_after_seconds": s.offset_ms / 1000, "seconds": s.took_ms / 1000,
             "end": s.kind, "reason": s.word, "worker": s.where or None, "guest": s.guest or None}
            for s in summary.slowest
        ],
        "activity": [part._asdict() for part in summary.activity],
    }  # fmt: skip


def builds_lines(kept: KeptBuilds, found: tuple[FarmBuild, ...]) -> list[str]:
    """Return the list for a terminal."""
    from hpcc.cli.base.columns import columns
    from hpcc.cli.builds.farm_words import lacking, served_of
    from hpcc.cli.builds.words import duration, moment, percent
    from hpcc.obs.text import one_line

    if not kept.keep_seconds:
        return ["this farm keeps no builds (builds_mib = 0 in the scheduler's config)"]
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.since))
    tail = [f"known since {since}, from reports of clients; {kept.displaced} made room for others"]
    if lack := lacking(kept.silent, max(kept.kept - len(kept.builds), 0)):
        tail.append(lack)
    if not found:
        return ["no build has been reported", *tail]
    rows = [("id", "build", "who", "tenant", "last report", "took", "compiles", "from a cache")]
    for build in found:
        summary, last = build.summary, build.last
        rows.append(
            (
                build.build_id, one_line(summary.build), one_line(last.principal), last.tenant,
                moment(int(last.reported_at * 1e6)),
                duration((summary.ended_ms - summary.began_ms) * 1000), f"{summary.compiles:,}",
                percent(*served_of(summary)),
            )
        )  # fmt: skip
    return [*columns(rows), "", *tail]


def build_lines(build: FarmBuild) -> list[str]:
    """Return a build for a terminal."""
    from hpcc.cli.base.columns import columns
    from hpcc.cli.builds.farm_words import kind_words, lacking, served_of, uncounted
    from hpcc.cli.builds.words import duration, moment, percent, words_of
    from hpcc.obs.text import one_line

    summary, last = build.summary, build.last
    proof = "proved by the login" if last.is_proved else "as the client says"
    lines = [
        one_line(summary.build),
        f"  by {one_line(last.principal)} of {last.tenant} ({proof}); the rest is what the client"
        " says",
        f"  {moment(summary.began_ms * 1000)}, took"
        f" {duration((summary.ended_ms - summary.began_ms) * 1000)},"
        f" {summary.compiles:,} compiles, {percent(*served_of(summary))} from a cache",
    ]
    if lack := lacking(build.silent, build.left_out):
        lines.append(f"  {lack}")
    lines += [f"  {line}" for line in uncounted(summary)]
    if summary.commit:
        lines.append(f"  commit {summary.commit}")
    rows = [(kind_words(t.word), f"{t.compiles:,}", duration(t.took_ms * 1000))
            for t in summary.kinds]  # fmt: skip
    lines += ["", *columns([("end", "compiles", "took"), *rows])]
    for cause in summary.causes:
        words = words_of(cause.family, cause.word)
        lines += ["", f"{words.title}: {cause.compiles:,} compiles", f"  {words.remedy}"]
    if summary.places:
        places = [(t.word or "here", f"{t.compiles:,}", duration(t.took_ms * 1000))
                  for t in summary.places]  # fmt: skip
        lines += ["", *columns([("where", "compiles", "took"), *places])]
    return lines
