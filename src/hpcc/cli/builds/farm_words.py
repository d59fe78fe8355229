"""What pages and commands call the numbers of a build that a client told the farm of."""

from __future__ import annotations

from typing import Final

from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import CompileKind
from hpcc.cache.recorder.report import RAN, SERVED
from hpcc.cli.builds.words import KINDS, PHASES
from hpcc.core.build_summary import INSTEAD, BuildSummary

_SERVED: Final = frozenset(kind.value for kind in SERVED)
_LOOKUPS: Final = frozenset(kind.value for kind in SERVED | RAN)
_KINDS: Final = {kind.value: text for kind, text in KINDS.items()}
_PHASES: Final = {phase.value: text for phase, text in PHASES.items()}
FARM: Final = CompileKind.FARM.value
CALL: Final = Phase.CALL.value


def served_of(summary: BuildSummary) -> tuple[int, int]:
    """Return how many compiles a cache served, and how many it could have."""
    served = sum(t.compiles for t in summary.kinds if t.word in _SERVED)
    return served, sum(t.compiles for t in summary.kinds if t.word in _LOOKUPS)


def count_of(summary: BuildSummary, *words: str) -> int:
    """Return how many compiles ended in one of these ways."""
    return sum(t.compiles for t in summary.kinds if t.word in words)


def instead_of(summary: BuildSummary) -> int:
    """Return how many compiles the farm should have done and did not."""
    return sum(c.compiles for c in summary.causes if c.family in INSTEAD)


def lacking(silent: int, left_out: int) -> str:
    """Return what lacks in what is shown; "" if nothing does."""
    said = []
    if silent:
        who = "1 scheduler" if silent == 1 else f"{silent} schedulers"
        said.append(f"{who} showed nothing: builds and reports that are kept there lack here.")
    if left_out:
        what = "1 older report is" if left_out == 1 else f"{left_out:,} older reports are"
        said.append(f"{what} kept and not in these numbers.")
    return " ".join(said)


def uncounted(summary: BuildSummary) -> list[str]:
    """Return what the client itself did not count."""
    found = []
    if summary.is_damaged:
        found.append("A part of the client's record is damaged or made room, and is not counted.")
    if summary.left_out:
        left_out = f"{summary.left_out:,}"
        found.append(f"{left_out} compiles are not counted: the client's record was full.")
    return found


def kind_words(word: str) -> str:
    """Return the words for how compiles ended; of a later version's kind its word."""
    return _KINDS.get(word, word)


def phase_words(word: str) -> str:
    """Return the words for a part of a compile; likewise."""
    return _PHASES.get(word, word)
