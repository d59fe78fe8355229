"""What `hpcc explain` and `hpcc stats` print about a refusal: its place, meaning and remedy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.uncacheable import UncacheableReason

if TYPE_CHECKING:
    from hpcc.cache.results.records_read import CompileRecord
    from hpcc.core.reasons.reason import Reason

_KINDS: Final[dict[str, type[Reason]]] = {
    "bypass": BypassReason,
    "uncacheable": UncacheableReason,
}
_MAX_WORD: Final = 120


def reason_of(outcome: str, word: str) -> Reason | None:
    """Return the member for a refusal's word; None for other outcomes and unknown words."""
    kind = _KINDS.get(outcome)
    return None if kind is None else kind.of_word(word)


def culprit_of(record: CompileRecord) -> str:
    """Return the file and line, or the argument, that a refusal is about; "" if that is unknown.

    A bypass for which no single argument is to blame is about the whole command.
    """
    if record.culprit or record.outcome != "bypass":
        return record.culprit
    from hpcc.cache.key.refused import refused_word  # late: the flag tables are not always needed

    env = {os.fsencode(name): os.fsencode(value) for name, value in record.env.items()}
    argv = tuple(map(os.fsencode, record.argv))
    found = refused_word(os.fsencode(record.compiler), argv, env, record.reason)
    word = os.fsdecode(found) or " ".join(record.argv)
    return word if len(word) <= _MAX_WORD else word[: _MAX_WORD - 1] + "…"


def explained(record: CompileRecord) -> list[str]:
    """Return the lines of `hpcc explain` about a refused compile; empty for other compiles."""
    reason = reason_of(record.outcome, record.reason)
    if reason is None:
        return []
    culprit = culprit_of(record)
    return [
        f"  because       {reason}: {reason.text}",
        *([f"  found at      {culprit}"] if culprit else []),
        f"  remedy        {reason.remedy}",
        f"  more          {reason.anchor}",
    ]


def stayed(title: str, kind: type[Reason], recorded: str) -> list[str]:
    """Return the lines of `hpcc explain` about a result that did not go somewhere.

    `recorded` is a reason's word, alone or before a colon and what this compile has to do with it.
    A farm's own refusals have words that no kind lists.
    """
    word, _, detail = recorded.partition(": ")
    reason = kind.of_word(word)
    if reason is None:
        return [f"  {title:<14}{recorded}"]
    return [
        f"  {title:<14}{word}: {detail or reason.text}",
        f"  remedy        {reason.remedy}",
        f"  more          {reason.anchor}",
    ]


def latest_refusals(records: Sequence[CompileRecord]) -> dict[str, CompileRecord]:
    """Return the last refused compile of each counter, such as `uncacheable.has-include`."""
    return {f"{r.outcome}.{r.reason}": r for r in records if r.outcome in _KINDS}


def summed_up(counter: str, record: CompileRecord | None) -> list[str]:
    """Return what `hpcc stats` prints below a counter of refusals: a place and the remedy."""
    outcome, _, word = counter.partition(".")
    reason = reason_of(outcome, word)
    if reason is None:
        return []
    culprit = culprit_of(record) if record is not None else ""
    place = culprit or (" ".join(record.sources[:1]) if record is not None else "")
    return [f"{'':11}last: {place}"] * bool(place) + [f"{'':11}{reason.remedy}"]
