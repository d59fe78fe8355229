"""What happens to a compile that the farm did not do: the decision is one for all clients."""

from __future__ import annotations

import logging

from hpcc.cache.base.api import Done
from hpcc.dispatch.parity import EffectivePolicy, forbidden_text


def refused_or_local(
    words: EffectivePolicy, reason: str, message: str, log: logging.Logger
) -> Done | None:
    """Return the failure for `fallback = "never"`; None where the compile is done locally.

    With `fallback = "warn"` the log gets a line that says why.
    """
    match words.fallback:
        case "never":
            return Done(1, b"", forbidden_text(words, reason, message))
        case "warn":
            log.warning("compiled locally (%s): %s", reason, message)
        case "quiet":
            pass
    return None
