"""Which actions are not run again, and for how long."""

from __future__ import annotations

from dataclasses import replace

from hpcc.core import Digest, GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.deaths import MAX_REMEMBERED, REMEMBERED_SECONDS, Deaths
from hpcc_testkit.services.idp_tokens import FixedClock

ANN = TrustDomain.of(
    tenant=TenantId("acme"),
    image=ImageDigest("sha256:" + "ab" * 32),
    isolation=Isolation.QEMU_TCG,
    reuse=GuestReuse.PRINCIPAL,
    principal="ann",
)
ACTION = Digest.of(b"action")


def test_an_action_that_ended_two_guests_is_let_run_again_after_a_while() -> None:
    clock = FixedClock()
    deaths = Deaths(clock)
    deaths.note(ANN, ACTION)
    assert not deaths.is_quarantined(ANN, ACTION)
    deaths.note(ANN, ACTION)
    assert deaths.is_quarantined(ANN, ACTION)
    assert not deaths.is_quarantined(replace(ANN, principal="bob"), ACTION)
    clock.time += REMEMBERED_SECONDS - 1
    assert deaths.is_quarantined(ANN, ACTION)
    clock.time += 1
    assert not deaths.is_quarantined(ANN, ACTION)
    deaths.note(ANN, ACTION)
    assert not deaths.is_quarantined(ANN, ACTION), "what is forgotten counts no more"


def test_a_flood_of_deadly_actions_takes_no_memory_without_end() -> None:
    deaths = Deaths(FixedClock())
    for _ in range(2):
        deaths.note(ANN, ACTION)
    for number in range(MAX_REMEMBERED):
        deaths.note(ANN, Digest.of(str(number).encode()))
    assert not deaths.is_quarantined(ANN, ACTION)
