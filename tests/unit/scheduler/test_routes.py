"""Which routes an answer has, and what their tokens grant together."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hpcc.core import GuestReuse, ImageDigest, ImageRef, Isolation, SharingPolicy, TenantId
from hpcc.identity.oidc.verify import IdentityPolicy
from hpcc.identity.session_token import SessionClaims
from hpcc.identity.token import RouteClaims
from hpcc.rpc.scheduler.api import Registration, Route, RouteAsk
from hpcc.scheduler.registry import WorkerRegistry
from hpcc.scheduler.routes import RouteIssuer
from hpcc.scheduler.tenants.sharing import TenantSharing
from hpcc.scheduler.tenants.table import TenantPolicy, TenantQuotas
from hpcc_testkit.services.idp_tokens import FixedClock

IMAGE = ImageRef("gcc", ImageDigest("sha256:" + "ab" * 32))
TENANT = TenantId("acme")
SESSION = SessionClaims(
    tenant="acme", principal="ann", client_version="t", identity="", expires_at=1e9, serial=1
)
POLICY = TenantPolicy(tenant=TENANT, identity=None, images=(), minimum_isolation=Isolation.QEMU_TCG)


class Farm:
    """Workers of two places, and the claims of the tokens that were signed."""

    def __init__(self, *names: str, knows_shares: bool = True, knows_leases: bool = True) -> None:
        clock, self.epoch = FixedClock(), "k-1"
        self.registry, self.signed = WorkerRegistry(clock, 10.0), list[RouteClaims]()
        for name in names:
            self.add(name, knows_shares=knows_shares, knows_leases=knows_leases)
        keys: Any = SimpleNamespace(
            issuer="i",
            signer=lambda: SimpleNamespace(sign=self._sign),
            voter_secret=lambda: (self.epoch, self.epoch.encode()),
        )
        config: Any = SimpleNamespace(token_seconds=300.0)
        self.issuer = RouteIssuer(config, keys, clock, self.registry)

    def add(
        self,
        name: str,
        *,
        knows_shares: bool = True,
        knows_leases: bool = True,
        knows_sharing: bool = True,
        knows_verify: bool = True,
    ) -> None:
        self.registry.register(
            Registration(
                worker_id=name, endpoint="h:1", certificate=name.encode(), result_proof=b"p",
                isolation=Isolation.QEMU_TCG, images=(IMAGE.digest,), capacity=2,
                result_key=b"k", knows_shares=knows_shares,
                knows_leases=knows_leases, knows_sharing=knows_sharing,
                knows_verify=knows_verify,
            )
        )  # fmt: skip

    def sharing(self, policy: TenantPolicy, principal: str = "ann") -> RouteClaims:
        """Return the claims of a principal's token."""
        self.signed.clear()
        ask = RouteAsk(tenant=TENANT, image=IMAGE)
        self.issuer.issue(replace(SESSION, principal=principal), policy, ask)
        return self.signed[0]

    def voter(self, policy: TenantPolicy, principal: str) -> str:
        """Return the voter that a principal is."""
        claimed = self.sharing(policy, principal).sharing
        assert claimed is not None
        return claimed.voter

    def _sign(self, claims: RouteClaims) -> str:
        self.signed.append(claims)
        return str(len(self.signed))

    def ask(self, wanted: int, *warm: str, quotas: TenantQuotas | None = None) -> list[Route]:
        self.signed.clear()
        ask = RouteAsk(
            tenant=TENANT, image=IMAGE, minimum_isolation=None, failed_generation=0,
            client_key=b"k" * 32, wanted=wanted, warm_workers=warm,
        )  # fmt: skip
        policy = replace(POLICY, quotas=quotas or TenantQuotas())
        first = self.issuer.issue(SESSION, policy, ask)
        return [first, *first.more]

    @property
    def shares(self) -> list[int | None]:
        return [c.share.in_flight if c.share is not None else None for c in self.signed]


def test_an_answer_has_as_many_routes_as_the_build_needs() -> None:
    farm = Farm("w1", "w2", "w3", "w4")
    assert [len(farm.ask(wanted)) for wanted in (0, 1, 2, 3, 6, 99)] == [1, 1, 1, 2, 3, 4]
    assert farm.shares == [None] * 4, "without a quota there is nothing to split"


def test_the_worker_that_a_caller_uses_first_stays_the_first() -> None:
    """Its compiles of the earlier, larger grant count; another first one would come on top."""
    farm, quotas = Farm("w1", "w2", "w3"), TenantQuotas(concurrent_execs=3)
    (first,) = farm.ask(1, quotas=quotas)
    for _ in range(40):  # it looks full until its next heartbeat
        routes = farm.ask(9, first.worker_id, quotas=quotas)
        assert routes[0].worker_id == first.worker_id
        assert [r.slots for r in routes] == farm.shares == [2, 1]


def test_a_worker_that_is_silent_for_a_while_keeps_its_share() -> None:
    """Another one in its place would get the share while compiles run at the first."""
    farm, quotas = Farm("w1", "w2", "w3"), TenantQuotas(concurrent_execs=3)
    used = [r.worker_id for r in farm.ask(9, quotas=quotas)]
    farm.registry.parted(used[1])
    routes = farm.ask(9, *used, quotas=quotas)
    assert [r.worker_id for r in routes] == used
    farm.registry.parted(used[0])
    routes = farm.ask(9, *used, quotas=quotas)
    assert [r.worker_id for r in routes] == used
    other = next(iter({"w1", "w2", "w3"} - set(used)))
    assert [r.worker_id for r in farm.ask(1)] == [other], "a newcomer does not get them"


@pytest.mark.parametrize("wanted", [1, 5, 99])
@pytest.mark.parametrize("quota", [1, 2, 3, 7, 100])
def test_what_an_answer_grants_is_never_more_than_the_quota(wanted: int, quota: int) -> None:
    farm = Farm("w1", "w2", "w3", "w4")
    quotas = TenantQuotas(concurrent_execs=quota, upload_bytes=1000)
    routes = farm.ask(wanted, quotas=quotas)
    assert sum(r.slots for r in routes) <= quota
    shares = [c.share for c in farm.signed]
    if len(routes) > 1:
        assert all(s is not None and s.in_flight > 0 and s.upload_bytes > 0 for s in shares)
        assert sum(s.upload_bytes for s in shares if s is not None) <= 1000


def test_a_worker_that_knows_no_shares_is_used_alone_or_not_at_all() -> None:
    quotas = TenantQuotas(concurrent_execs=8)
    farm = Farm("w1", knows_shares=False)
    farm.add("w2")
    farm.add("w3")
    assert [r.worker_id for r in farm.ask(8, "w1", quotas=quotas)] == ["w1"]
    assert farm.shares == [None]
    assert {r.worker_id for r in farm.ask(8, "w2", quotas=quotas)} == {"w2", "w3"}
    assert len(farm.ask(8, "w2")) == 3, "without a quota it serves as the others"


def test_a_tenant_with_a_limit_on_the_farm_needs_leases_at_each_worker() -> None:
    farm, quotas = Farm("w1", "w2", "w3"), TenantQuotas(farm_execs=5)
    routes = farm.ask(9, "w1", quotas=quotas)
    assert [r.slots for r in routes] == [2, 2, 1], "not more than the limit"
    assert all(c.leased and c.quotas.concurrent_execs == 5 for c in farm.signed)
    farm.ask(9, "w1", quotas=TenantQuotas(farm_weight=2))
    assert all(c.leased and not c.quotas.concurrent_execs for c in farm.signed)
    farm.ask(9, quotas=TenantQuotas(concurrent_execs=5))
    assert not any(c.leased for c in farm.signed)


def test_a_worker_that_leases_nothing_is_used_alone_or_not_at_all() -> None:
    quotas = TenantQuotas(farm_execs=8)
    farm = Farm("w1", knows_leases=False)
    farm.add("w2")
    farm.add("w3")
    assert [r.worker_id for r in farm.ask(8, "w1", quotas=quotas)] == ["w1"]
    assert [c.leased for c in farm.signed] == [False], "it would refuse the claim"
    assert {r.worker_id for r in farm.ask(8, "w2", quotas=quotas)} == {"w2", "w3"}


def test_tokens_of_one_answer_differ_in_worker_and_id_only() -> None:
    farm = Farm("w1", "w2", "w3")
    farm.ask(6)
    assert len({c.token_id for c in farm.signed}) == len({c.audience for c in farm.signed}) == 3
    same = {replace(c, token_id="", audience="", generation=0) for c in farm.signed}
    assert len(same) == 1


IDENTITY = IdentityPolicy(issuer="https://login.example", audience="hpcc", client_ids=("hpcc-cli",))
PEOPLE = replace(POLICY, identity=IDENTITY)


def test_people_are_voters_and_machines_are_one_voter_together() -> None:
    farm = Farm("w1")
    sharing = TenantSharing(machines=("bot-*", "nightly"), publish_fresh=("ci-*",))
    policy = replace(PEOPLE, sharing=sharing)
    names = ("ann", "bob", "bot-1", "bot-2", "nightly", "ci-main")
    voters = {name: farm.voter(policy, name) for name in names}
    assert len({voters[n] for n in ("ann", "bob", "bot-1")}) == 3
    assert len({voters[n] for n in ("bot-1", "bot-2", "nightly", "ci-main")}) == 1
    assert farm.voter(policy, "ann") == voters["ann"]
    assert not any(name in voter for name, voter in voters.items())


def test_a_voter_of_another_epoch_or_tenant_is_another_voter() -> None:
    farm = Farm("w1")
    first = farm.voter(PEOPLE, "ann")
    assert farm.voter(replace(PEOPLE, tenant=TenantId("globex")), "ann") != first
    farm.epoch = "k-2"
    epoch, _, pseudonym = farm.voter(PEOPLE, "ann").partition(":")
    assert epoch == "k-2"
    assert pseudonym not in first


@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        replace(PEOPLE, identity=replace(IDENTITY, client_ids=(), claims=(("a", ("b",)),))),
        replace(PEOPLE, identity=replace(IDENTITY, principal_claim="email")),
    ],
    ids=["one-secret", "no-client", "email"],
)
def test_a_tenant_whose_members_cannot_be_told_apart_shares_what_is_fresh_only(
    policy: TenantPolicy,
) -> None:
    claimed = Farm("w1").sharing(policy).sharing
    assert claimed is not None
    assert claimed.policy == SharingPolicy(fresh=True)
    across = replace(policy, sharing=TenantSharing(agree_across_workers=True))
    assert Farm("w1").sharing(across).sharing is None


def test_only_a_worker_that_knows_sharing_is_told_of_it() -> None:
    farm = Farm()
    farm.add("old", knows_sharing=False)
    assert farm.sharing(PEOPLE).sharing is None
    assert farm.issuer.issue(
        SESSION, PEOPLE, RouteAsk(tenant=TENANT, image=IMAGE)
    ).sharing.is_private


def test_only_a_worker_that_knows_a_budget_for_idle_time_is_told_of_it() -> None:
    policy = replace(PEOPLE, sharing=TenantSharing(verify_idle=60))
    old = Farm()
    old.add("old", knows_verify=False)
    for farm, seconds in ((old, 0), (Farm("w1"), 60)):
        claimed = farm.sharing(policy).sharing
        assert claimed is not None
        assert claimed.verify_seconds == seconds


def test_ci_that_publishes_gets_a_guest_for_each_compile() -> None:
    policy = replace(PEOPLE, sharing=TenantSharing(publish_fresh=("ci",)))
    farm = Farm("w1")
    assert farm.sharing(policy, "ci").guest_reuse is GuestReuse.EXEC
    assert farm.sharing(policy, "ci-fork").guest_reuse is GuestReuse.PRINCIPAL


@pytest.mark.parametrize("packs", [False, True])
def test_each_route_says_whether_the_tenant_allows_packs(packs: bool) -> None:
    policy = replace(PEOPLE, sharing=TenantSharing(packs=packs))
    route = Farm("w1", "w2").issuer.issue(SESSION, policy, RouteAsk(tenant=TENANT, image=IMAGE))
    assert [r.packs for r in (route, *route.more)] == [packs] * (1 + len(route.more))


@pytest.mark.parametrize("reuse", [GuestReuse.EXEC, GuestReuse.PRINCIPAL])
def test_a_tenant_that_shares_by_its_guests_reuse_needs_no_claims(reuse: GuestReuse) -> None:
    policy = replace(PEOPLE, guest_reuse=reuse)
    assert (Farm("w1").sharing(policy).sharing is None) == (reuse is GuestReuse.EXEC)
