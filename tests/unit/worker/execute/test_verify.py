"""What an idle worker does not execute again: each rule of `verify` refuses or waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hpcc.core import Digest, GuestReuse, ImageDigest, Isolation, SharingPolicy, TenantId
from hpcc.identity.token import RouteSharing
from hpcc.rpc.reapi.session import Client
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.execute.turns import Candidate
from hpcc.worker.execute.verify import _CLAIMANT_RUNS, HourlyBudget, IdleVerifier

TENANT = TenantId("acme")
CANDIDATE = Candidate(
    action=Digest.of(b"a"),
    domain=TrustDomain.of(
        tenant=TENANT, image=ImageDigest("sha256:" + "ab" * 32),
        isolation=Isolation.QEMU_KVM, reuse=GuestReuse.PRINCIPAL, principal="ann",
    ),
    sharing=RouteSharing(policy=SharingPolicy(fresh=True, agree=2), voter="v", verify_seconds=60),
    principal="ann",
    client=Client(credential="", instance="acme"),
    client_version="t",
    result="1" * 64,
    seconds=1.0,
    claimants=("v", "w"),
)  # fmt: skip


class Bench:
    """A verifier whose neighbours say what a test sets."""

    def __init__(self) -> None:
        self.time, self.is_killer, self.is_idle, self.has_place = 1000.0, False, True, True
        clock: Any = SimpleNamespace(now=lambda: self.time, monotonic=lambda: self.time)
        runner: Any = SimpleNamespace(has_ended_a_guest=lambda *_: self.is_killer)
        self.pool: Any = SimpleNamespace(is_idle_for=lambda _: self.is_idle, is_awaited=False)
        quotas: Any = SimpleNamespace(has_room=lambda *_: self.has_place)
        sharing: Any = SimpleNamespace(counters={"verify.dropped": 0})
        storage: Any = None
        self.verifier = IdleVerifier(runner, self.pool, quotas, storage, sharing, clock)
        self.admit()

    def admit(self, *, leased: bool = False, seconds: float = 600.0) -> None:
        claims: Any = SimpleNamespace(
            tenant=TENANT, subject="ann", leased=leased, expires_at=self.time + seconds
        )
        self.verifier.note(claims)

    @property
    def refusal(self) -> str:
        return self.verifier._refusal(CANDIDATE)

    @property
    def may_run(self) -> bool:
        return self.verifier._may_run(CANDIDATE)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_nothing_runs_for_a_maker_who_is_no_longer_admitted(bench: Bench) -> None:
    assert (bench.refusal, bench.may_run) == ("", True)
    bench.time += 600.0
    assert bench.refusal == "not-admitted"
    bench.admit(leased=True)
    assert bench.refusal == "not-admitted"
    bench.admit()
    assert bench.refusal == ""


async def test_an_action_that_ever_ended_a_guest_is_skipped(bench: Bench) -> None:
    bench.is_killer = True
    assert bench.refusal == "ended-a-guest"


async def test_a_claimant_who_disagrees_with_everything_causes_few_executions(bench: Bench) -> None:
    for _ in range(_CLAIMANT_RUNS):
        assert bench.refusal == ""
        bench.verifier._runs.charge((TENANT, "w"), 1)
    assert bench.refusal == "claimant-budget"
    bench.time += 3600.0
    bench.admit()
    assert bench.refusal == ""


async def test_a_tenant_has_its_budget_and_no_more_in_each_hour(bench: Bench) -> None:
    bench.verifier._seconds.charge(TENANT, 59.0)
    assert bench.may_run
    bench.verifier._seconds.charge(TENANT, 1.0)
    assert not bench.may_run
    bench.time += 3600.0
    assert bench.may_run


async def test_nothing_runs_beside_others_or_without_a_place_of_the_makers_quota(
    bench: Bench,
) -> None:
    bench.is_idle = False
    assert not bench.may_run
    bench.is_idle, bench.has_place = True, False
    assert not bench.may_run


async def test_what_may_run_later_keeps_its_place_and_what_never_may_is_dropped(
    bench: Bench,
) -> None:
    bench.verifier.offer(CANDIDATE)
    bench.is_idle = False
    assert bench.verifier._next() is None
    bench.is_idle = True
    assert bench.verifier._next() is CANDIDATE
    assert bench.verifier._next() is None


def test_an_hour_begins_with_the_first_use() -> None:
    now = [0.0]
    clock: Any = SimpleNamespace(monotonic=lambda: now[0])
    budget: HourlyBudget[str] = HourlyBudget(clock)
    budget.charge("a", 2.0)
    now[0] = 3599.0
    budget.charge("a", 3.0)
    assert (budget.used("a"), budget.used("b")) == (5.0, 0.0)
    now[0] = 3600.0
    assert budget.used("a") == 0.0
