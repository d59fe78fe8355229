"""How a coverage is printed. Every name in it may be hostile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpcc.evidence.local_record import LocalCompile
from hpcc.evidence.model import Coverage, FilePart, Grade, Making, PartSource
from hpcc.obs.text import one_line

_SHOWN: Final = 20
_KINDS: Final = {Grade.MEMBERS: "static library", Grade.CLAIMED: "linked file", Grade.WHOLE: "file"}


def coverage_lines(
    making: Making, coverage: Coverage, local: Mapping[str, LocalCompile] | None = None
) -> list[str]:
    """Return the lines that say where the parts of a file came from.

    `local` has signed records of compiles on this machine by the digest of their object. A part
    without a row that has one is shown apart, and counts as unknown all the same.
    """
    lines = [
        f"{one_line(making.name)}  sha256:{making.digest}  {_KINDS[making.grade]},"
        f" {coverage.total} parts"
    ]
    for label, count in coverage.guests.items():
        lines.append(_line(PartSource.GUEST.value, count, one_line(label)))
    packages = sorted({part.package for part in making.parts if part.package})
    if host := coverage.counts[PartSource.HOST]:
        lines.append(
            _line(PartSource.HOST.value, host, "files of packages, as the machine that linked says")
        )
        lines += (f"                    {one_line(purl)}" for purl in packages[:_SHOWN])
        lines += _more(len(packages), "packages")
    for source, what in (
        (
            PartSource.SERVED,
            "a worker had it; no row of its execution in an accepted isolation is here",
        ),
        (PartSource.LTO, "of a guest, and compiled by the link: link-time optimisation"),
        (PartSource.UNKNOWN, "no row and no package has these bytes"),
    ):
        found = [part for part, of in coverage.unproved if of is source]
        if source is PartSource.UNKNOWN:
            here = [part for part in found if part.digest in (local or {})]
            lines += _local_lines(here, local or {})
            found = [part for part in found if part.digest not in (local or {})]
        if found:
            lines.append(_line(source.value, len(found), what))
        for part in found[:_SHOWN]:
            note = f"  ({one_line(part.note)})" if part.note else ""
            lines.append(
                f"                    {one_line(part.name)}  {part.digest[:16] or '-'}{note}"
            )
        lines += _more(len(found), "parts")
    if coverage.left_out:
        lines.append(_line("left out", coverage.left_out, "the record of the link has no room for"))
    lines.append(_making_line(making))
    return lines


def _local_lines(parts: list[FilePart], local: Mapping[str, LocalCompile]) -> list[str]:
    if not parts:
        return []
    what = "compiled on this machine, as a record of its user's key says: weaker than a row"
    lines = [_line("local", len(parts), what)]
    for part in parts[:_SHOWN]:
        one = local[part.digest]
        why = one.fallback or one.reason or "not asked for"
        lines.append(
            f"                    {one_line(part.name)}  {part.digest[:16]}  ({one_line(why)},"
            f" {one_line(one.compiler)}, build {one_line(one.build) or '?'}, {one.finished_on})"
        )
    return lines + _more(len(parts), "parts")


def verdict_line(making: Making, coverage: Coverage) -> str:
    """Return the verdict in words."""
    negative = len(coverage.unproved) + coverage.left_out
    guests = coverage.counts[PartSource.GUEST]
    if not coverage.is_proved:
        if not negative:
            return "verdict FAILED: no part of it is of a guest"
        return f"verdict FAILED: {negative} of {coverage.total} parts are not of an accepted guest"
    words = f"verdict PASSED: all {guests} compiled objects are of guests"
    if host := coverage.counts[PartSource.HOST]:
        words += f"; {host} files are of packages of the machine that linked"
    return words + ("; which parts there are is claimed" if making.grade is Grade.CLAIMED else "")


def _making_line(making: Making) -> str:
    facts = dict(making.facts or {})
    match making.grade:
        case Grade.MEMBERS:
            return "made: the members are in the library, byte for byte"
        case Grade.WHOLE:
            return "made: taken as one object"
        case Grade.CLAIMED:
            return one_line(
                f"link: claimed by the machine that linked ({facts.get('compiler', '?')},"
                f" {facts.get('finishedOn', '?')})   build: {facts.get('build') or '?'} (claimed)"
            )


def _line(word: str, count: int, what: str) -> str:
    return f"  {word:<9}{count:>7}  {what}"


def _more(count: int, what: str) -> list[str]:
    return [f"                    … and {count - _SHOWN} more {what}"] if count > _SHOWN else []
