"""What both stores decide about leased shares: what an ask changes, and what is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from hpcc.control.checks import check_name
from hpcc.ports import Divide, LeasedShare, ShareKey

# Sums of many shares stay within what a database can hold.
_MAX_PLACES: Final = 1 << 20


def check_asks(asks: Sequence[LeasedShare]) -> None:
    """Reject names that a store could not keep; raises as `check_name` does."""
    for ask in asks:
        check_name(ask.worker_id, ask.tenant, ask.principal)


def deal(
    live: Iterable[LeasedShare], asks: Sequence[LeasedShare], divide: Divide
) -> tuple[dict[ShareKey, LeasedShare], dict[ShareKey, LeasedShare | None]]:
    """Return all shares after `divide`, and what changes: a share, or None for one that ends.

    What a worker says that it holds counts, also if its share has ended meanwhile: that runs.
    """
    shares = {share.key: share for share in live}
    asked = dict[ShareKey, LeasedShare]()
    for ask in asks:
        wanted, held = (min(max(n, 0), _MAX_PLACES) for n in (ask.wanted, ask.held))
        asked[ask.key] = replace(ask, wanted=wanted, held=held)
    shares.update(asked)
    places = divide(shares)
    changes = dict[ShareKey, LeasedShare | None]()
    for key, share in asked.items():
        granted = min(max(places.get(key, 0), 0), _MAX_PLACES)
        held = max(granted, share.held) if key in places else 0
        if key in places and (share.wanted or held):
            changes[key] = shares[key] = replace(share, granted=granted, held=held)
        else:
            changes[key] = None
            del shares[key]
    return shares, changes
