"""One recorded compile: its fields, their limits, and what kind of end it had."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from hpcc.cache.base.times import MAX_PARTS, Phase
from hpcc.core.reasons.fallback import LOCAL_SLOT

# The year 9999, as for the records of `hpcc explain`.
MAX_AT_US: Final = 253_402_000_000_000_000
# 49 days. A longer compile is recorded as one that took this long.
MAX_TOOK_US: Final = (1 << 32) * 1000 - 1
MAX_BYTES: Final = 1 << 50
MAX_TEXT: Final = 1024
MAX_WORD: Final = 256


class CompileKind(StrEnum):
    """How a compile ended, as people count them."""

    HIT = "hit"
    FARM_CACHE = "farm-cache"
    FARM = "farm"
    HERE = "here"
    NOT_KEPT = "not-kept"
    FAILED = "failed"
    BYPASS = "bypass"
    GIVEN_UP = "given-up"
    REFUSED = "refused"


MISSED: Final = frozenset({CompileKind.FARM, CompileKind.HERE})
"""The cache had no result, and a compiler ran to a good end. `hpcc stats` counts why."""
ABANDONED: Final = "miss.abandoned"
"""The outcome of a compile whose launcher ended before it reported."""
FAILED: Final = "failed"
"""The outcome of a compile that failed in a guest, where a policy forbids to repeat it here."""
REFUSED: Final = "refused"
"""The outcome of a compile that the farm did not do and this machine may not."""
_KINDS: Final = {
    "miss.local": CompileKind.HERE,
    "miss.remote.executed": CompileKind.FARM,
    "miss.engine.executed": CompileKind.FARM,
    "miss.failed": CompileKind.FAILED,
    FAILED: CompileKind.FAILED,
    ABANDONED: CompileKind.GIVEN_UP,
    REFUSED: CompileKind.REFUSED,
    "uncacheable": CompileKind.NOT_KEPT,
    "bypass": CompileKind.BYPASS,
}


class PhasePart(NamedTuple):
    """A part of a compile: its offset from the compile's begin, and how long it took."""

    phase: Phase
    offset_us: int
    took_us: int


class Compile(NamedTuple):
    """One compile. Times are microseconds, `began_us` since the epoch.

    `outcome`, `reason` and `fallback` are the words that `hpcc explain` has. `where` names the
    worker of a farm that answered, `guest` the guest. `saved_us` is what the compile took whose
    result a hit served; 0 if unknown. `culprit` is the file and line that a refusal is about. A
    bypass took what hpcc needed to decide: its compiler is not observed.
    """

    began_us: int
    took_us: int
    outcome: str
    source: str
    output: str
    reason: str = ""
    fallback: str = ""
    where: str = ""
    guest: str = ""
    size_bytes: int = 0
    saved_us: int = 0
    culprit: str = ""
    phases: tuple[PhasePart, ...] = ()

    @property
    def ended_us(self) -> int:
        """Return when it ended."""
        return self.began_us + self.took_us

    @property
    def kind(self) -> CompileKind:
        """Return how it ended."""
        return kind_of(self.outcome)

    @property
    def fallback_word(self) -> str:
        """Return the reason why the farm did not do it, without its detail; "" without one."""
        word = self.fallback.partition(":")[0]
        return "" if word == LOCAL_SLOT else word


def kind_of(outcome: str) -> CompileKind:
    """Return the kind of an outcome; of an unknown one that of what its first word says."""
    known = _KINDS.get(outcome)
    if known is not None:
        return known
    if outcome.startswith("hit."):
        return CompileKind.HIT
    return (
        CompileKind.FARM_CACHE
        if outcome.startswith(("miss.remote.", "miss.engine."))
        else CompileKind.HERE
    )


class NestedPart(NamedTuple):
    """A part, cut so that it lies inside another one; `parent` is that one's place, -1 for none."""

    part: PhasePart
    parent: int


def nested(parts: Sequence[PhasePart], took_us: int) -> list[NestedPart]:
    """Return parts that lie inside each other or apart, since viewers show nothing else."""
    found: list[NestedPart] = []
    open_parts: list[tuple[int, int]] = []
    for part in sorted(parts, key=lambda p: (p.offset_us, -p.took_us)):
        while open_parts and open_parts[-1][0] <= part.offset_us:
            open_parts.pop()
        limit, parent = open_parts[-1] if open_parts else (took_us, -1)
        end = min(part.offset_us + part.took_us, limit)
        open_parts.append((end, len(found)))
        cut = part._replace(took_us=max(end - part.offset_us, 0))
        found.append(NestedPart(cut, parent))
    return found


def row_of(compile_: Compile) -> list[object]:
    """Return a compile as JSON has it, with every field inside its limit."""
    c = compile_
    took = _bounded(c.took_us, MAX_TOOK_US)
    return [
        _bounded(c.began_us, MAX_AT_US), took, c.outcome[:MAX_WORD],
        c.source[:MAX_TEXT], c.output[:MAX_TEXT], c.reason[:MAX_WORD], c.fallback[:MAX_TEXT],
        c.where[:MAX_WORD], c.guest[:MAX_WORD], _bounded(c.size_bytes, MAX_BYTES),
        _bounded(c.saved_us, MAX_TOOK_US), c.culprit[:MAX_TEXT],
        [
            [part.phase.value, *_inside(part.offset_us, part.took_us, took)]
            for part in c.phases[:MAX_PARTS]
        ],
    ]  # fmt: skip


def compile_of(row: object) -> Compile:
    """Return the compile of a row from a file.

    Raises:
        ValueError: a field is missing, of another type, or outside its limit.
    """
    match row:
        case [
            int(began), int(took), str(outcome), str(source), str(output), str(reason),
            str(fallback), str(where), str(guest), int(size), int(saved), str(culprit),
            list(phases),
        ]:  # fmt: skip
            pass
        case _:
            raise ValueError("not a compile")
    for number, most in (
        (began, MAX_AT_US), (took, MAX_TOOK_US), (size, MAX_BYTES), (saved, MAX_TOOK_US),
    ):  # fmt: skip
        if isinstance(number, bool) or not 0 <= number <= most:
            raise ValueError("a number outside its limit")
    if max(map(len, (source, output, fallback, culprit))) > MAX_TEXT:
        raise ValueError("a text that is too long")
    if max(map(len, (outcome, reason, where, guest))) > MAX_WORD or len(phases) > MAX_PARTS:
        raise ValueError("a word that is too long, or too many phases")
    parts = tuple(_part_of(part, took) for part in phases)
    return Compile(
        began, took, outcome, source, output, reason, fallback, where, guest, size, saved,
        culprit, parts,
    )  # fmt: skip


def _part_of(part: object, took_us: int) -> PhasePart:
    match part:
        case [str(name), int(offset), int(took)]:
            is_number = type(offset) is int and type(took) is int  # no `true`
            if not is_number or min(offset, took) < 0 or offset + took > took_us:
                raise ValueError("a phase outside its compile")
            return PhasePart(Phase(name), offset, took)
        case _:
            raise ValueError("not a phase")


def _bounded(number: int, most: int) -> int:
    return min(max(int(number), 0), most)


def _inside(offset_us: int, took_us: int, most_us: int) -> tuple[int, int]:
    start = _bounded(offset_us, most_us)
    return start, _bounded(took_us, most_us - start)
