"""Decides what happens to a compile that the farm did not do; the same for all clients."""

from __future__ import annotations

import logging

from hpcc.cache.base.api import Done
from hpcc.dispatch.parity import EffectivePolicy, forbidden_text


def refused_or_local(
    words: EffectivePolicy, reason: str, message: str, log: logging.Logger
) -> Done | None:
    """Return the failure for `fallback = "never"`, or None for a local compile.

    With `fallback = "warn"` the reason is logged.
    """
    match words.fallback:
        case "never":
            return Done(1, b"", forbidden_text(words, reason, message))
        case "warn":
            log.warning("compiled locally (%s): %s", reason, message)
        case "quiet":
            pass
    return None
