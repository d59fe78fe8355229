"""The comparison of two builds for a terminal, and as a document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from hpcc.cli.builds.comparison import (
    Compared,
    UnitChange,
    UnitChanges,
    compared_causes,
    compared_ends,
    compared_places,
    growth,
    has_all_causes,
)
from hpcc.cli.builds.farm_words import instead_of, kind_words, served_of
from hpcc.cli.builds.text import table
from hpcc.cli.builds.words import duration, percent, words_of
from hpcc.core.build_summary import BuildSummary
from hpcc.obs.text import one_line

FORMAT: Final = 1
_CAUSES: Final = 16
_COLUMNS: Final = ("before", "now", "change", "took before", "took now")
SOME_LEFT_OUT: Final = (
    "A build has more reasons than are kept: the cheapest ones are not compared, and may seem gone."
)


def signed(us: int) -> str:
    """Return a difference of times with its sign."""
    return f"{'-' if us < 0 else '+'}{duration(abs(us))}" if us else "same"


def more_or_less(number: int) -> str:
    """Return a difference of numbers with its sign."""
    return f"{number:+,}" if number else "same"


def comparison_lines(
    before: BuildSummary, now: BuildSummary, units: UnitChanges | None = None
) -> list[str]:
    """Return the comparison; `units` is of builds of this machine."""
    took = [(s.ended_ms - s.began_ms) * 1000 for s in (before, now)]
    rows = [
        ("", "before", "now", "change"),
        ("build", one_line(before.build), one_line(now.build), ""),
        ("took", *map(duration, took), signed(took[1] - took[0])),
        ("compiles", f"{before.compiles:,}", f"{now.compiles:,}",
         more_or_less(now.compiles - before.compiles)),
        ("from a cache", percent(*served_of(before)), percent(*served_of(now)), ""),
        ("here instead", f"{instead_of(before):,}", f"{instead_of(now):,}",
         more_or_less(instead_of(now) - instead_of(before))),
    ]  # fmt: skip
    lines = table(rows)
    ends = _rows(compared_ends(before, now), lambda c: kind_words(c.word))
    lines += ["", *table([("end", *_COLUMNS), *ends])]
    causes = [c for c in compared_causes(before, now) if c.change != "same"]
    if causes:
        lines += ["", "why compiles were not served: what changed"]
        lines += table([("reason", *_COLUMNS), *_rows(causes[:_CAUSES], _cause_words)])
    if not has_all_causes(before, now):
        lines.append(SOME_LEFT_OUT)
    return lines + (_unit_lines(units) if units is not None else [])


def _cause_words(c: Compared) -> str:
    return words_of(c.family, c.word).title


def _rows(found: Sequence[Compared], words: Callable[[Compared], str]) -> list[tuple[str, ...]]:
    return [
        (one_line(words(c)), f"{c.before:,}", f"{c.now:,}", c.change,
         duration(c.before_ms * 1000), duration(c.now_ms * 1000))
        for c in found
    ]  # fmt: skip


def _unit_lines(units: UnitChanges) -> list[str]:
    said = ", ".join(f"{n:,} {word}" for word, n in units.counts.items() if n)
    lines = ["", f"by output: {said or 'nothing changed'}"]
    for title, found in (
        ("ran in both, and took longer", units.slower), ("ran now, and not before", units.missed),
    ):  # fmt: skip
        if found:
            lines += ["", title, *table([_unit_row(u) for u in found])]
    return lines


def _unit_row(u: UnitChange) -> tuple[str, ...]:
    before, now = u.before, u.now
    was = "not there" if before is None else duration(before.took_us) if before.is_ran else "served"
    took = duration(now.took_us) if now is not None else "-"
    reason = one_line(now.reason) if now is not None else ""
    return (
        f"  {signed(growth(u)):>12}",
        f"{was:>12}",
        f"{took:>12}",
        reason or "-",
        one_line(u.name),
    )


def comparison_document(
    before: BuildSummary, now: BuildSummary, units: UnitChanges | None = None
) -> dict[str, Any]:
    """Return the document. Times are seconds; a unit that a build did not make has null."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "before": _head(before),
        "now": _head(now),
        "ends": [{"end": c.word, **_numbers(c)} for c in compared_ends(before, now)],
        "causes": [
            {"family": c.family, "reason": c.word, **_numbers(c)}
            for c in compared_causes(before, now)
        ],
        "has_all_causes": has_all_causes(before, now),
        "places": [{"worker": c.word or None, **_numbers(c)} for c in compared_places(before, now)],
    }  # fmt: skip
    if units is not None:
        document["units"] = {
            "counts": units.counts,
            **{
                name: [_unit(u) for u in found]
                for name, found in (
                    ("slower", units.slower), ("faster", units.faster), ("missed", units.missed),
                )
            },
        }  # fmt: skip
    return document


def _head(s: BuildSummary) -> dict[str, Any]:
    served, lookups = served_of(s)
    return {
        "build": s.build, "began_at": s.began_ms / 1000, "ended_at": s.ended_ms / 1000,
        "compiles": s.compiles, "served": served, "lookups": lookups, "instead": instead_of(s),
    }  # fmt: skip


def _numbers(c: Compared) -> dict[str, Any]:
    return {
        "before": c.before, "now": c.now, "change": c.change,
        "before_seconds": c.before_ms / 1000, "now_seconds": c.now_ms / 1000,
    }  # fmt: skip


def _unit(u: UnitChange) -> dict[str, Any]:
    return {
        "name": u.name,
        "before_seconds": u.before.took_us / 1e6 if u.before is not None else None,
        "now_seconds": u.now.took_us / 1e6 if u.now is not None else None,
        "reason": u.now.reason if u.now is not None else None,
    }
