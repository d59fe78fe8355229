"""One line about recent fallbacks: how many compiles ran here instead of on the farm, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from hpcc.core.reasons.fallback import LOCAL_SLOT

if TYPE_CHECKING:
    from hpcc.cache.results.records_read import CompileRecord

LATELY_SECONDS: Final = 3600.0


def fallback_line(records: Sequence[CompileRecord], now: float) -> str:
    """Summarise the last hour in one line, followed by the newest detailed message."""
    noted = [r.fallback for r in records if now - r.at < LATELY_SECONDS]
    lately = [text for text in noted if text not in {"", LOCAL_SLOT}]
    if not lately:
        return "no compile of the last hour fell back to this machine"
    reasons = Counter(text.partition(":")[0] for text in lately)
    counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    line = f"{len(lately)} compiles of the last hour fell back to this machine: {counted}"
    messages = [text.partition(": ")[2] for text in lately if ": " in text]
    return f"{line}. {messages[-1]}" if messages else line
