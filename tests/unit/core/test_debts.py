"""Every reason has a cost, says how it is settled and what remains."""

from __future__ import annotations

import pytest

from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.closure import ClosureReason
from hpcc.core.reasons.debts import debt_of
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.private import PrivateReason
from hpcc.core.reasons.reason import Reason
from hpcc.core.reasons.uncacheable import UncacheableReason

KINDS: tuple[type[Reason], ...] = (
    BypassReason, UncacheableReason, FallbackReason, PrivateReason, ClosureReason,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_reason_has_a_debt(kind: type[Reason]) -> None:
    for reason in kind:
        debt = debt_of(reason)
        assert debt.cost and debt.settled and debt.remains, reason  # noqa: PT018 - one fact
        assert "|" not in debt.cost + debt.settled + debt.remains


def test_kinds_that_share_a_word_have_their_own_debts() -> None:
    assert debt_of(UncacheableReason.PCH) != debt_of(BypassReason.PCH)
    assert debt_of(FallbackReason.HAS_INCLUDE) != debt_of(UncacheableReason.HAS_INCLUDE)
