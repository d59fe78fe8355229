"""Entries of a pack of a farm: their form, and which results may be one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcc.core import (
    PRIVATE_ONLY,
    Digest,
    GuestReuse,
    Isolation,
    SharingClass,
    SharingPolicy,
    TenantId,
)
from hpcc.reapi.limits import MAX_RESULT_BYTES, ReapiError
from hpcc.reapi.packed import encode_packed, parse_packed, serves_tenant
from hpcc.reapi.result import ResultOutput, ResultRecord, SharingEvidence, encode_result

ALL = SharingPolicy(fresh=True, agree=2)
OBJECT = b"object"
OWN = ResultRecord(
    exit_code=0, stdout=b"", stderr=b"warning", isolation=Isolation.QEMU_KVM,
    outputs=(ResultOutput("a.o", Digest.of(OBJECT)),), reuse=GuestReuse.PRINCIPAL, guest_id="g",
    guest_execs_before=0, worker="w1", image="sha256:" + "ab" * 32, inline={"a.o": OBJECT},
)  # fmt: skip
SHARED = replace(OWN, evidence=SharingEvidence(sharing=SharingClass.FRESH, row="ab" * 16))
FRESH = replace(OWN, reuse=GuestReuse.EXEC)
ACTION = Digest.of(b"action")
ENTRY = encode_packed(TenantId("acme"), ACTION, SHARED)


def test_an_entry_comes_back_as_it_was() -> None:
    assert parse_packed(ENTRY) == ("acme", str(ACTION), SHARED)


@pytest.mark.parametrize(
    "data", [b"", b"x", ENTRY[:-1], ENTRY + b"x", ENTRY + b"\0" * 4, ENTRY[4:]]
)
def test_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(ReapiError):
        parse_packed(data)


def test_a_length_beyond_the_end_takes_no_memory() -> None:
    with pytest.raises(ReapiError):
        parse_packed(b"\xff\xff\xff\xff" + ENTRY)


def test_a_result_over_the_limit_makes_no_entry_and_is_not_read() -> None:
    large = replace(SHARED, inline={"a.o": bytes(MAX_RESULT_BYTES)})
    assert encode_packed(TenantId("acme"), ACTION, large) == b""
    with pytest.raises(ReapiError, match="too large"):
        parse_packed(ENTRY + bytes(MAX_RESULT_BYTES + (1 << 10)))


@pytest.mark.parametrize(
    ("record", "policy", "serves"),
    [
        (SHARED, ALL, True),
        (SHARED, PRIVATE_ONLY, False),
        (OWN, ALL, False),
        (FRESH, ALL, True),
        (FRESH, SharingPolicy(agree=2), False),
        (FRESH, SharingPolicy(fresh=True, agree=2, across_workers=True), False),
        (replace(FRESH, guest_execs_before=1), ALL, False),
        (replace(OWN, reuse=GuestReuse.TENANT), ALL, False),
        (replace(SHARED, exit_code=1), ALL, False),
        (replace(FRESH, reason="limit"), ALL, False),
    ],
)
def test_who_made_a_result_alone_gets_it_unless_it_is_shared_or_of_a_fresh_guest(
    record: ResultRecord, policy: SharingPolicy, serves: bool
) -> None:
    assert serves_tenant(record, policy) is serves


def test_an_entry_has_the_workers_own_bytes() -> None:
    assert ENTRY.endswith(encode_result(SHARED))
