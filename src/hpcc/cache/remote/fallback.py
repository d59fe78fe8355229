"""Decides what happens to a compile that the farm does not do, or has no room for.

It is the same for all clients.
"""

from __future__ import annotations

import logging
import sys

from hpcc.cache.base.api import Done
from hpcc.config.farm import Farm
from hpcc.core import Isolation, LocalSlots
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


def permitted(
    wanted: LocalSlots, farm: Farm, policy: EffectivePolicy, *, is_exact: bool
) -> LocalSlots:
    """Return whether compiles may run here by setting, policy and farm; `is_exact` is the parity.

    "exact" also needs routes that accept `local/none`, which the dispatcher knows.
    """
    if sys.platform != "linux" or wanted == "off":
        return "off"
    if farm.engine or policy.fallback == "never":
        return "off"
    if wanted == "any":
        return "any"
    return "exact" if is_exact and _accepts_none(farm.isolation) else "off"


def _accepts_none(label: str) -> bool:
    try:
        return Isolation(label).rank <= Isolation.LOCAL_NONE.rank
    except ValueError:
        return True  # the farm's routes tell
