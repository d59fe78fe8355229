"""The report and the list of builds for a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from hpcc.cache.recorder.compiles import CompileKind
from hpcc.cache.recorder.reading import BuildLine
from hpcc.cache.recorder.report import BuildReport, Cause
from hpcc.cache.root.build_identity import is_guessed
from hpcc.cli.builds.words import (
    KINDS,
    PHASES,
    below,
    common_directory,
    duration,
    moment,
    name_of,
    percent,
    place_of,
    words_of,
)
from hpcc.obs.text import one_line

_SLOWEST: Final = 10
_CAUSES: Final = 12
_CHAIN: Final = 8
_PLACES: Final = 12
_LINKS: Final = 12


def builds_lines(builds: Sequence[BuildLine]) -> list[str]:
    """Return a table of builds, the last to end at the end."""
    has_links = any(line.links for line in builds)
    links = ("links",) if has_links else ()
    rows: list[tuple[str, ...]] = [
        ("ended", "took", "compiles", "hits", *links, "build", "for example")
    ]
    rows += [
        (
            moment(line.ended_us), duration(line.ended_us - line.began_us), str(line.compiles),
            percent(line.hits, line.lookups),
            *((str(line.links),) if has_links else ()),
            one_line(line.build) + (" (damaged)" if line.is_damaged else ""), one_line(line.source),
        )
        for line in builds
    ]  # fmt: skip
    return table(rows)


def report_lines(report: BuildReport) -> list[str]:
    """Return the report of a build."""
    base = common_directory((*report.slowest, *(cause.example for cause in report.causes)))
    lines = [*_head(report, base), "", *_counts(report), "", *_times(report)]
    for part in (_causes(report, base), _changed(report, base), _places(report),
                 _slowest(report, base), _chain(report, base), _links(report, base)):  # fmt: skip
        if part:
            lines += ["", *part]
    return lines


def _head(report: BuildReport, base: str) -> list[str]:
    took = report.ended_us - report.began_us
    lines = [
        f"build      {one_line(report.build)}"
        + (" (guessed: no variable named the build)" if is_guessed(report.build) else ""),
        f"when       {moment(report.began_us)} to {_time(report.ended_us)}",
        f"took       {duration(took)}",
    ]
    if took - report.busy_us > took // 10:
        lines[-1] += f"; compiles were under way for {duration(report.busy_us)} of it"
    if base:
        lines.append(f"below      {one_line(base)}")
    if report.left_out:
        lines.append(f"left out   {report.left_out} older compiles")
    if report.is_damaged:
        lines.append("damaged    a part of the record could not be read, and is left out")
    return lines


def _counts(report: BuildReport) -> list[str]:
    rate = percent(report.served, report.lookups)
    lines = [
        f"compiles   {report.compiles}; hits are {rate} of {report.lookups} that a cache can serve"
    ]
    return lines + [
        f"  {report.counts[k]:>8}  {KINDS[k]}" for k in CompileKind if k in report.counts
    ]


def _times(report: BuildReport) -> list[str]:
    lines = [
        f"parallel   {report.average_at_once:.1f} at once on average, {report.at_once} at most",
        f"compiling  {duration(report.compiled_us)} in {report.compiled} compiles: what a perfect "
        "cache would have saved",
    ]
    if report.saved_us:
        lines.append(f"saved      {duration(report.saved_us)} of compiling by hits, at least")
    shares = ", ".join(f"{PHASES[phase]} {duration(us)}" for phase, us in report.phases.items())
    return lines + ([f"phases     {shares}"] if shares else [])


def _causes(report: BuildReport, base: str) -> list[str]:
    if not report.causes:
        return []
    lines = ["why it was not served, with what these compiles took"]
    for cause in report.causes[:_CAUSES]:
        words = words_of(cause.family, cause.word)
        text = f": {words.text}" if words.text else ""
        lines.append(f"  {cause.compiles:>8}  {cost_of(cause):>12}  {one_line(words.title)}{text}")
        lines.append(f"{'':26}{words.remedy}")
        lines.append(f"{'':26}for example {one_line(name_of(cause.example, base))}")
    return lines + _more(len(report.causes), _CAUSES, "reasons")


def cost_of(cause: Cause) -> str:
    """Return what the compiles of a cause took; the compiler after a bypass is not observed."""
    return "-" if cause.family == "bypass" else duration(cause.took_us)


def _changed(report: BuildReport, base: str) -> list[str]:
    if not report.changed:
        return []
    rows = [
        (f"  {c.compiles:>8}", f"{duration(c.took_us):>12}", one_line(below(c.path, base)))
        for c in report.changed[:_CAUSES]
    ]
    more = _more(len(report.changed), _CAUSES, "inputs")
    return [
        "inputs that changed, with the compiles that missed because of each",
        *table(rows),
        *more,
    ]


def _places(report: BuildReport) -> list[str]:
    if not any(place.where for place in report.places):
        return []
    rows = [
        (f"  {place.compiles:>8}", f"{duration(place.took_us):>12}",
         one_line(place.where) or "this machine")
        for place in report.places[:_PLACES]
    ]  # fmt: skip
    return ["where compilers ran", *table(rows), *_more(len(report.places), _PLACES, "places")]


def _slowest(report: BuildReport, base: str) -> list[str]:
    if not report.slowest:
        return []
    rows = [
        (f"  {duration(c.took_us):>12}", one_line(place_of(c)), one_line(name_of(c, base)))
        for c in report.slowest[:_SLOWEST]
    ]
    return ["slowest", *table(rows)]


def _chain(report: BuildReport, base: str) -> list[str]:
    if len(report.chain) < 2:  # noqa: PLR2004 - one compile is not a chain
        return []
    rows = [
        (f"  {'+' + duration(c.began_us - report.began_us):>12}", f"{duration(c.took_us):>12}",
         one_line(name_of(c, base)))
        for c in report.chain[-_CHAIN:]
    ]  # fmt: skip
    title = "longest chain: each began after the one before it had ended"
    return [title, *table(rows)]


def _links(report: BuildReport, base: str) -> list[str]:
    if not report.links:
        return []
    rows = [
        (f"  {duration(link.took_us):>12}", f"{len(link.inputs) + link.left_out} inputs",
         str(link), link.output.digest[:16], one_line(below(link.output.path, base)))
        for link in report.links[-_LINKS:]
    ]  # fmt: skip
    more = _more(len(report.links), _LINKS, "links, which ended earlier")
    return ["links, as this machine saw them (hpcc explain OUTPUT)", *table(rows), *more]


def _more(found: int, shown: int, what: str) -> list[str]:
    return [f"{'':12}… and {found - shown} more {what}"] if found > shown else []


def _time(us: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(us / 1_000_000))


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows with aligned columns; the last column has any width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
