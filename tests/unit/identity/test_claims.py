"""A claim counts only with a valid signature, for its own question, by a key that is listed."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.core import (
    Digest,
    GuestReuse,
    ImageDigest,
    Isolation,
    SharingClass,
    SharingPolicy,
    TenantId,
)
from hpcc.identity.claims import good_claims
from hpcc.identity.result_keys import FRESH_SECONDS, ResultKeys
from hpcc.identity.results import ResultError, ResultSigner, check_result
from hpcc.reapi.agreement import result_digest
from hpcc.reapi.claims import ClaimScope, ResultClaim, Voter
from hpcc.reapi.result import ResultOutput, ResultRecord, SharingEvidence
from hpcc.reapi.signed import ResultScope, ResultTerms

NOW = 1_800_000_000.25
IMAGE = ImageDigest("sha256:" + "ab" * 32)
ACME = TenantId("acme")
ACTION = Digest.of(b"a")
SCOPE = ClaimScope(tenant=ACME, action=ACTION, image=IMAGE)


class At:
    """A `Clock` that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


class Farm:
    """Two workers with listed keys, one that is a stranger, and a reader of their claims."""

    def __init__(self) -> None:
        self.clock = At()
        self.one, self.two, self.stranger = (
            ResultSigner(Ed25519PrivateKey.generate(), self.clock) for _ in range(3)
        )
        self.listed = {s.key_id: s.public for s in (self.one, self.two)}
        self.keys = ResultKeys(self.ask, self.clock)

    async def ask(self, tenant: TenantId, kid: str) -> bytes | None:
        return self.listed.get(kid) if tenant == ACME else None

    async def count(self, *claims: ResultClaim, scope: ClaimScope = SCOPE) -> int:
        return len(await good_claims(claims, scope, self.keys))


RECORD = ResultRecord(
    exit_code=0,
    stdout=b"",
    stderr=b"",
    outputs=(ResultOutput("a.o", Digest.of(b"a")),),
    isolation=Isolation.QEMU_KVM,
    reuse=GuestReuse.PRINCIPAL,
    guest_id="g-1",
    guest_execs_before=4,
    worker="w1",
    image=IMAGE.value,
    queued_at=NOW,
    started_at=NOW,
    completed_at=NOW,
)


def claim_by(signer: ResultSigner, voter: str = "a", result: str = "") -> ResultClaim:
    unsigned = ResultClaim(
        result=result or result_digest(RECORD),
        voter=Voter(pseudonym=voter * 32, epoch="k-1"),
        guest_id=f"g-{voter}",
        execs_before=3,
        is_overlapped=False,
        isolation=Isolation.QEMU_KVM,
        reuse=GuestReuse.PRINCIPAL,
        snapshot="",
        row="e" * 32,
        made_at_ms=0,
        key_id="0" * 32,
    )
    return signer.sign_claim(unsigned, SCOPE)


async def test_a_claim_with_a_listed_key_counts() -> None:
    farm = Farm()
    claims = (claim_by(farm.one), claim_by(farm.two), claim_by(farm.stranger))
    assert await good_claims(claims, SCOPE, farm.keys) == claims[:2]


@pytest.mark.parametrize(
    "scope",
    [
        replace(SCOPE, action=Digest.of(b"b")),
        replace(SCOPE, tenant=TenantId("globex")),
        replace(SCOPE, image=ImageDigest("sha256:" + "cd" * 32)),
    ],
    ids=["action", "tenant", "image"],
)
async def test_a_claim_for_another_action_tenant_or_image_does_not_count(scope: ClaimScope) -> None:
    farm = Farm()
    assert await farm.count(claim_by(farm.one), scope=scope) == 0


OTHER: dict[str, object] = {
    "result": "2" * 64,
    "voter": Voter(pseudonym="b" * 32, epoch="k-1"),
    "guest_id": "g-2",
    "execs_before": 0,
    "is_overlapped": True,
    "isolation": Isolation.FIRECRACKER_KVM,
    "reuse": GuestReuse.EXEC,
    "snapshot": "sha256:6",
    "row": "f" * 32,
    "made_at_ms": 1,
}


@pytest.mark.parametrize("name", OTHER)
async def test_a_forged_field_voids_the_claim(name: str) -> None:
    farm = Farm()
    assert await farm.count(replace(claim_by(farm.one), **{name: OTHER[name]})) == 0


def test_no_field_of_a_claim_is_left_unsigned() -> None:
    assert {f.name for f in fields(ResultClaim)} == set(OTHER) | {"key_id", "signature"}


async def test_a_claim_under_another_workers_name_does_not_count() -> None:
    farm = Farm()
    assert await farm.count(replace(claim_by(farm.one), key_id=farm.two.key_id)) == 0


def agreed_by(farm: Farm, *claims: ResultClaim) -> ResultRecord:
    evidence = SharingEvidence(sharing=SharingClass.AGREED, row="e" * 32, claims=claims)
    scope = ResultScope(tenant=ACME, action=ACTION, principal="")
    return farm.one.sign(replace(RECORD, evidence=evidence), scope)


TERMS = ResultTerms(
    scope=ResultScope(tenant=ACME, action=ACTION, principal="carol"),
    image=IMAGE,
    minimum_isolation=Isolation.QEMU_TCG,
    reuse=GuestReuse.PRINCIPAL,
    sharing=SharingPolicy(fresh=True, agree=2),
)


async def refusal(farm: Farm, record: ResultRecord, terms: ResultTerms = TERMS) -> str:
    try:
        await check_result(record, terms, farm.keys, now=NOW)
    except ResultError as error:
        return error.reason
    return ""


async def test_an_agreed_result_serves_a_third_person_with_all_its_claims() -> None:
    farm = Farm()
    claims = claim_by(farm.one, "a"), claim_by(farm.two, "b")
    assert await refusal(farm, agreed_by(farm, *claims)) == ""
    forged = claim_by(farm.stranger, "b")
    assert await refusal(farm, agreed_by(farm, claims[0], forged)) == "result-claims"
    assert await refusal(farm, agreed_by(farm, claims[0])) == "result-sharing"


async def test_a_revoked_key_voids_its_claims_and_what_rested_on_them() -> None:
    farm = Farm()
    record = agreed_by(farm, claim_by(farm.one, "a"), claim_by(farm.two, "b"))
    assert await refusal(farm, record) == ""
    del farm.listed[farm.two.key_id]
    farm.clock.at += FRESH_SECONDS
    assert await refusal(farm, record) == "result-claims"


async def test_a_private_result_is_not_made_a_shared_one_by_a_store_writer() -> None:
    farm = Farm()
    private = farm.one.sign(RECORD, ResultScope(tenant=ACME, action=ACTION, principal="mallory"))
    assert await refusal(farm, private) == "result-signature"
    fresh = SharingEvidence(sharing=SharingClass.FRESH, row="e" * 32)
    evident = replace(private, evidence=fresh, guest_execs_before=0)
    assert await refusal(farm, evident) == "result-signature"


async def test_a_shared_result_is_refused_where_nothing_is_shared() -> None:
    farm = Farm()
    record = agreed_by(farm, claim_by(farm.one, "a"), claim_by(farm.two, "b"))
    private = replace(TERMS, sharing=SharingPolicy())
    assert await refusal(farm, record, private) == "result-sharing"
