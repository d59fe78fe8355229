"""The table of `make bench-corpus`, and whether it is good."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from corpus.listing import Corpus
from corpus.replaying import Row
from corpus.tools import CCACHE, HPCC

FORMAT: Final = 1
COLD: Final = "cold"
_SHOWN: Final = 6
_REFUSALS: Final = ("bypass.", "uncacheable.")
_LEAST_PER_REFUSAL: Final = 100


@dataclass
class PackageResult:
    """What one package's run found. `trouble` says why a package or its rest was not measured."""

    name: str
    system: str
    language: str
    version: str = ""
    recorded: int = 0
    seconds: float = 0.0
    trouble: str = ""
    rows: list[Row] = field(default_factory=list)


def save(result: PackageResult, path: Path, settings: Mapping[str, object]) -> None:
    """Write one package's result, with the settings that it was made under."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, "settings": settings, **asdict(result)}, indent=1)
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def load_result(path: Path, settings: Mapping[str, object]) -> PackageResult | None:
    """Return a finished result of the same settings; None if the package must be measured."""
    try:
        table = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None
    if table.pop("format", 0) != FORMAT or table.pop("settings", None) != dict(settings):
        return None
    rows = [Row(**row) for row in table.pop("rows")]
    return PackageResult(**table, rows=rows)


def shortfalls(results: Iterable[PackageResult], corpus: Corpus) -> list[str]:
    """Return what makes the run bad: differing outputs, and rows below ccache without an excuse."""
    found = []
    for result in results:
        for row in result.rows:
            where = f"{result.name}, {row.scenario}"
            if row.differing.get(HPCC):
                found.append(f"{where}: {len(row.differing[HPCC])} outputs of hpcc differ")
            is_short = row.hits.get(HPCC, 0) < row.hits.get(CCACHE, 0)
            if is_short and corpus.excuse(result.name, row.scenario) is None:
                hits = f"{row.hits.get(HPCC, 0)} hits, ccache {row.hits.get(CCACHE, 0)}"
                found.append(f"{where}: {hits} of {row.commands}")
    return found


def totals_below(results: Sequence[PackageResult]) -> list[str]:
    """Return what is bad about all rows together, of a run of the whole list and each scenario."""
    found = []
    rows = [row for result in results for row in result.rows]
    hpcc, ccache = (sum(row.hits.get(tool, 0) for row in rows) for tool in (HPCC, CCACHE))
    if hpcc <= ccache:
        found.append(f"in total {hpcc} hits, ccache {ccache}")
    refused, commands = refusals(results)
    if refused * _LEAST_PER_REFUSAL >= commands:
        found.append(f"{refused} of {commands} commands are refused, 1 % or more")
    return found


def refusals(results: Iterable[PackageResult]) -> tuple[int, int]:
    """Return how many commands of the first build hpcc refused, of how many."""
    first = [row for result in results for row in result.rows if row.scenario == COLD]
    refused = sum(
        value for row in first for name, value in row.reasons.items() if name.startswith(_REFUSALS)
    )
    return refused, sum(row.commands for row in first)


def rendered(
    results: Sequence[PackageResult], corpus: Corpus, *, is_whole: bool = False
) -> tuple[str, bool]:
    """Return the tables for people, and whether the run is good.

    Tables: rows, totals, reasons, differing objects, refusals, shortfalls. `is_whole`: the run was
    one of the whole list and each scenario, so that the totals count, too.
    """
    parts = [_rows(results, corpus), _totals(results), _reasons(results), _differing(results)]
    unmeasured = [f"  {r.name}: {r.trouble}" for r in results if r.trouble]
    if unmeasured:
        parts.append("\n".join(["not measured, or not to the end:", *unmeasured]))
    refused, commands = refusals(results)
    parts.append(f"{refused} of {commands} commands refused in the first build")
    short = [*shortfalls(results, corpus), *(totals_below(results) if is_whole else ())]
    parts.append("\n".join([f"{len(short)} shortfalls", *(f"  {line}" for line in short)]))
    return "\n\n".join(part for part in parts if part), bool(results) and not short


def _rows(results: Sequence[PackageResult], corpus: Corpus) -> str:
    lines = [
        f"{'package':<20}{'scenario':<22}{'compiles':>9}{'hpcc':>7}{'ccache':>8}  reasons of hpcc"
    ]
    for result in results:
        for row in result.rows:
            excuse = corpus.excuse(result.name, row.scenario)
            reasons = Counter(row.reasons).most_common(_SHOWN)
            words = [f"{name} {value}" for name, value in reasons]
            if excuse is not None:
                words.append(f"[excused: {excuse.why}]")
            lines.append(
                f"{result.name:<20}{row.scenario:<22}{row.commands:>9}{row.hits.get(HPCC, 0):>7}"
                f"{row.hits.get(CCACHE, 0):>8}  {', '.join(words)}".rstrip()
            )
            is_refused = any(name.startswith(_REFUSALS) for name in row.reasons)
            lines += [f"{'':22}{place}" for place in row.places if place and is_refused]
    return "\n".join(lines)


def _totals(results: Sequence[PackageResult]) -> str:
    totals: dict[str, Counter[str]] = {}
    for result in results:
        for row in result.rows:
            total = totals.setdefault(row.scenario, Counter())
            total["commands"] += row.commands
            for tool in (HPCC, CCACHE):
                total[tool] += row.hits.get(tool, 0)
                total[f"{tool} differing"] += len(row.differing.get(tool, []))
            total["unstable"] += len(row.unstable)
    lines = [
        f"{'all packages':<22}{'compiles':>9}{'hpcc':>7}{'%':>7}{'ccache':>8}{'%':>7}"
        f"{'differing: hpcc':>17}{'ccache':>8}"
    ]
    for scenario, total in totals.items():
        share = 100 / max(1, total["commands"])
        lines.append(
            f"{scenario:<22}{total['commands']:>9}{total[HPCC]:>7}{total[HPCC] * share:>7.1f}"
            f"{total[CCACHE]:>8}{total[CCACHE] * share:>7.1f}"
            f"{total[f'{HPCC} differing']:>17}{total[f'{CCACHE} differing']:>8}"
        )
    return "\n".join(lines)


def _reasons(results: Sequence[PackageResult]) -> str:
    counts: Counter[str] = Counter()
    for result in results:
        for row in result.rows:
            counts.update(row.reasons)
    lines = [f"  {value:>7}  {name}" for name, value in counts.most_common()]
    return "\n".join(["reasons of hpcc, all rows", *lines]) if lines else ""


def _differing(results: Sequence[PackageResult]) -> str:
    lines = [
        f"  {tool}: {result.name}, {row.scenario}: {what}"
        for result in results
        for row in result.rows
        for tool, found in row.differing.items()
        for what in found
    ]
    return "\n".join([f"{len(lines)} differing outputs", *lines])
