"""Signed results have one canonical form, and a change to any field is detected."""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hpcc.core import (
    CallerError,
    Digest,
    GuestReuse,
    ImageDigest,
    InfrastructureError,
    Isolation,
    SharingClass,
    TenantId,
)
from hpcc.identity.result_keys import (
    FRESH_SECONDS,
    MAX_ASKED,
    MAX_REMEMBERED,
    STALE_SECONDS,
    ResultKeys,
)
from hpcc.identity.results import (
    ResultError,
    ResultSigner,
    check_possession,
    check_result,
    verify_result,
)
from hpcc.reapi.result import (
    ResultOutput,
    ResultRecord,
    SharingEvidence,
    encode_result,
    parse_result,
)
from hpcc.reapi.signed import ResultScope, ResultTerms, signed_bytes

GOLDEN = Path(__file__).parents[2] / "golden" / "signed_result.json"
A, B = Digest.of(b"a"), Digest.of(b"b")
NOW = 1_800_000_000.25
IMAGE = ImageDigest("sha256:" + "ab" * 32)
ACME, GLOBEX = TenantId("acme"), TenantId("globex")


class At:
    """A `Clock` that stands still until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.at = now

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER, STRANGER = ResultSigner(KEY, At()), ResultSigner(Ed25519PrivateKey.generate(), At())
PUBLIC = KEY.public_key()
SCOPE = ResultScope(tenant=ACME, action=A, principal="ann")
TERMS = ResultTerms(
    scope=SCOPE,
    image=IMAGE,
    minimum_isolation=Isolation.QEMU_TCG,
    reuse=GuestReuse.PRINCIPAL,
)
RECORD = ResultRecord(
    exit_code=0,
    stdout=b"out",
    stderr=b"a.c:1:1: warning\n",
    outputs=(ResultOutput("a.o", A, is_executable=False), ResultOutput("b", B, True)),
    isolation=Isolation.QEMU_KVM,
    reuse=GuestReuse.PRINCIPAL,
    guest_id="g-1",
    guest_execs_before=3,
    worker="w1",
    image=IMAGE.value,
    queued_at=NOW - 3,
    started_at=NOW - 2,
    completed_at=NOW - 1,
    kernel_digest="sha256:" + "1" * 64,
    agent_digest="sha256:" + "2" * 64,
    lineage_digest="sha256:" + "3" * 64,
)
SIGNED = SIGNER.sign(RECORD, SCOPE)


def refusal(
    record: ResultRecord = SIGNED,
    terms: ResultTerms = TERMS,
    key: Ed25519PublicKey = PUBLIC,
    now: float = NOW,
) -> str:
    with pytest.raises(ResultError) as refused:
        verify_result(record, terms, key, now=now)
    return refused.value.reason


def test_the_signed_bytes_are_those_of_the_golden_file() -> None:
    """A change here is a new format: raise the number in RESULT_TAG in the same commit."""
    assert SIGNED.signature is not None
    found = {
        "key_id": SIGNED.signature.key_id,
        "signed": signed_bytes(RECORD, SCOPE, SIGNED.signature).hex(),
        "signature": SIGNED.signature.value.hex(),
    }
    assert found == json.loads(GOLDEN.read_text())


def test_a_signed_result_is_good_and_stays_so_in_stores_and_on_the_way() -> None:
    verify_result(SIGNED, TERMS, PUBLIC, now=NOW)
    stored = encode_result(SIGNED)
    read = parse_result(stored)
    assert encode_result(read) == stored
    inlined = parse_result(encode_result(replace(read, inline={"a.o": b"a"})))
    verify_result(inlined, TERMS, PUBLIC, now=NOW + 1e7)


OTHER: dict[str, object] = {
    "exit_code": 1,
    "stdout": b"",
    "stderr": b"nothing to see\n",
    "outputs": RECORD.outputs[:1],
    "isolation": Isolation.FIRECRACKER_KVM,
    "reuse": GuestReuse.EXEC,
    "guest_id": "g-2",
    "guest_execs_before": 0,
    "worker": "w2",
    "reason": "x",
    "queued_at": 0.0,
    "started_at": 0.0,
    "completed_at": 0.0,
    "kernel_digest": "",
    "agent_digest": "",
    "lineage_digest": "",
    "evidence": SharingEvidence(sharing=SharingClass.FRESH, row="e" * 32),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_result_with_another_field_is_refused(name: str) -> None:
    reason = "result-sharing" if name == "evidence" else "result-signature"
    assert refusal(replace(SIGNED, **{name: OTHER[name]})) == reason


def test_no_field_of_a_result_is_left_unsigned() -> None:
    checked_elsewhere = {"image", "signature", "inline"}
    assert {f.name for f in fields(ResultRecord)} == set(OTHER) | checked_elsewhere


@pytest.mark.parametrize(
    "outputs",
    [
        (replace(RECORD.outputs[0], path="a.p"), RECORD.outputs[1]),
        (replace(RECORD.outputs[0], digest=B), RECORD.outputs[1]),
        (replace(RECORD.outputs[0], is_executable=True), RECORD.outputs[1]),
        (ResultOutput("a.o", B, is_executable=False), ResultOutput("b", A, True)),
        (*RECORD.outputs, ResultOutput("c", A)),
        (),
    ],
    ids=["path", "content", "mode", "swapped", "added", "none"],
)
def test_a_store_writer_who_swaps_paths_or_files_is_caught(
    outputs: tuple[ResultOutput, ...],
) -> None:
    assert refusal(replace(SIGNED, outputs=outputs)) == "result-signature"


@pytest.mark.parametrize(
    "scope",
    [
        replace(SCOPE, tenant=GLOBEX),
        replace(SCOPE, action=B),
        replace(SCOPE, principal="bob"),
    ],
    ids=["tenant", "action", "principal"],
)
def test_a_result_that_answers_another_question_is_refused(scope: ResultScope) -> None:
    assert refusal(terms=replace(TERMS, scope=scope)) == "result-signature"


def test_a_guest_of_one_compile_may_serve_every_colleague() -> None:
    record = SIGNER.sign(replace(RECORD, reuse=GuestReuse.EXEC), SCOPE)
    verify_result(record, replace(TERMS, scope=replace(SCOPE, principal="bob")), PUBLIC, now=NOW)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"image": ImageDigest("sha256:" + "cd" * 32)}, "result-image"),
        ({"reuse": GuestReuse.EXEC}, "result-reuse"),
    ],
    ids=["image", "reuse"],
)
def test_a_true_result_that_the_tenant_does_not_accept_is_refused(
    terms: dict[str, object], reason: str
) -> None:
    assert refusal(terms=replace(TERMS, **terms)) == reason


def test_a_true_result_of_weaker_isolation_is_refused() -> None:
    weak = SIGNER.sign(replace(RECORD, isolation=Isolation.PROCESS_RUNC), SCOPE)
    assert refusal(weak) == "result-isolation"
    verify_result(weak, replace(TERMS, minimum_isolation=Isolation.PROCESS_RUNC), PUBLIC, now=NOW)


def test_a_result_of_an_unknown_signer_or_of_nobody_is_refused() -> None:
    assert refusal(STRANGER.sign(RECORD, SCOPE)) == "result-signature"
    assert refusal(RECORD) == "result-unsigned"


def test_a_result_of_the_future_is_refused_and_the_clocks_may_differ_by_minutes() -> None:
    verify_result(SIGNED, TERMS, PUBLIC, now=NOW - 299)
    assert refusal(now=NOW - 301) == "result-time"


def test_a_signature_cannot_be_moved_to_another_name_or_time() -> None:
    assert SIGNED.signature is not None
    for changed in (
        replace(SIGNED.signature, key_id=STRANGER.key_id),
        replace(SIGNED.signature, signed_at_ms=SIGNED.signature.signed_at_ms - 1),
        replace(SIGNED.signature, value=bytes(64)),
    ):
        assert refusal(replace(SIGNED, signature=changed)) == "result-signature"


def test_a_worker_shows_that_it_holds_the_key_that_it_registers() -> None:
    proof = SIGNER.possession("w1", b"certificate")
    assert check_possession(SIGNER.public, proof, "w1", b"certificate") == SIGNER.key_id
    for public, shown, worker, certificate in (
        (STRANGER.public, proof, "w1", b"certificate"),
        (SIGNER.public, proof, "w2", b"certificate"),
        (SIGNER.public, proof, "w1", b"certificat"),
        (SIGNER.public, b"", "w1", b"certificate"),
        (b"", proof, "w1", b"certificate"),
    ):
        with pytest.raises(CallerError) as refused:
            check_possession(public, shown, worker, certificate)
        assert refused.value.reason == "result-key"


class Scheduler:
    """Answers requests for keys, and counts them."""

    def __init__(self) -> None:
        self.listed = {(ACME, SIGNER.key_id): SIGNER.public}
        self.asked = 0
        self.is_away = False

    async def ask(self, tenant: TenantId, kid: str) -> bytes | None:
        self.asked += 1
        if self.is_away:
            raise InfrastructureError("away")
        return self.listed.get((tenant, kid))


async def test_a_key_is_asked_for_once_in_a_minute() -> None:
    scheduler, clock = Scheduler(), At()
    keys = ResultKeys(scheduler.ask, clock)
    for _ in range(3):
        await check_result(SIGNED, TERMS, keys, now=NOW)
    assert scheduler.asked == 1


async def test_a_result_of_a_revoked_key_is_refused_within_a_minute() -> None:
    scheduler, clock = Scheduler(), At()
    keys = ResultKeys(scheduler.ask, clock)
    await check_result(SIGNED, TERMS, keys, now=NOW)
    scheduler.listed.clear()
    clock.at += FRESH_SECONDS
    with pytest.raises(ResultError) as refused:
        await check_result(SIGNED, TERMS, keys, now=NOW)
    assert refused.value.reason == "result-key"


async def test_a_key_of_another_tenant_checks_nothing() -> None:
    keys = ResultKeys(Scheduler().ask, At())
    assert await keys.key(GLOBEX, SIGNER.key_id) is None
    assert await keys.key(ACME, SIGNER.key_id) is not None


async def test_a_scheduler_that_answers_with_another_key_is_not_believed() -> None:
    scheduler = Scheduler()
    scheduler.listed[ACME, SIGNER.key_id] = STRANGER.public
    assert await ResultKeys(scheduler.ask, At()).key(ACME, SIGNER.key_id) is None
    scheduler.listed[ACME, SIGNER.key_id] = b"short"
    assert await ResultKeys(scheduler.ask, At()).key(ACME, SIGNER.key_id) is None


async def test_with_the_scheduler_away_known_keys_are_good_for_ten_minutes() -> None:
    scheduler, clock = Scheduler(), At()
    keys = ResultKeys(scheduler.ask, clock)
    await keys.key(ACME, SIGNER.key_id)
    scheduler.is_away = True
    clock.at += STALE_SECONDS - 1
    asked = scheduler.asked
    for _ in range(5):
        assert await keys.key(ACME, SIGNER.key_id) is not None
    assert scheduler.asked == asked + 1
    clock.at += 1
    with pytest.raises(InfrastructureError):
        await keys.key(ACME, SIGNER.key_id)
    with pytest.raises(InfrastructureError):
        await keys.key(ACME, STRANGER.key_id)


async def test_a_scheduler_that_hangs_holds_up_one_check_and_not_all() -> None:
    scheduler, clock = Scheduler(), At()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def ask(tenant: TenantId, kid: str) -> bytes | None:
        if scheduler.asked:
            asked.set()
            await answer.wait()
        return await scheduler.ask(tenant, kid)

    keys = ResultKeys(ask, clock)
    await keys.key(ACME, SIGNER.key_id)
    clock.at += FRESH_SECONDS
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        first = group.create_task(keys.key(ACME, SIGNER.key_id))
        await asked.wait()
        assert await keys.key(ACME, SIGNER.key_id) is not None
        assert not first.done()
        answer.set()
    assert scheduler.asked == 2


async def test_invented_key_names_do_not_make_anybody_flood_the_scheduler() -> None:
    scheduler, clock = Scheduler(), At()
    keys = ResultKeys(scheduler.ask, clock)
    await keys.key(ACME, SIGNER.key_id)
    for number in range(2 * MAX_REMEMBERED):
        assert await keys.key(ACME, f"{number:032x}") is None
    assert scheduler.asked <= MAX_ASKED + 1
    assert len(keys._known) <= MAX_REMEMBERED
    clock.at += FRESH_SECONDS
    assert await keys.key(ACME, SIGNER.key_id) is not None
