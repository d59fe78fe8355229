"""Signed results: no two results have the same signed bytes, and each decodes to the original."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import Digest, GuestReuse, Isolation, SharingClass, TenantId
from hpcc.reapi.claims import ResultClaim, Voter
from hpcc.reapi.result import (
    ResultOutput,
    ResultRecord,
    ResultSignature,
    SharingEvidence,
    encode_result,
    parse_result,
)
from hpcc.reapi.signed import ResultScope, signed_bytes

# Few and short, so that fields can be mistaken for each other.
TEXTS = st.text("ab/\0é", max_size=3)
DATA = st.binary(max_size=3)
DIGESTS = st.sampled_from([Digest.of(b""), Digest.of(b"a"), Digest.of(b"b")])
PATHS = st.text("ab", min_size=1, max_size=2)
TIMES = st.integers(0, 1 << 42).map(lambda ms: ms / 1000)
OUTPUTS = st.lists(
    st.builds(ResultOutput, PATHS, DIGESTS, st.booleans()), max_size=3, unique_by=lambda o: o.path
).map(lambda found: tuple(sorted(found, key=lambda o: o.path)))
CLAIMS = st.builds(
    ResultClaim,
    result=st.sampled_from(["1" * 64, "2" * 64]),
    voter=st.builds(
        Voter, pseudonym=st.sampled_from(["a" * 32, "b" * 32]), epoch=st.sampled_from("ab")
    ),
    guest_id=st.sampled_from(["g", "h", ""]),
    execs_before=st.integers(0, 3),
    is_overlapped=st.booleans(),
    isolation=st.sampled_from(Isolation),
    reuse=st.sampled_from(GuestReuse),
    snapshot=st.sampled_from(["", "s"]),
    row=st.sampled_from(["e" * 32, "f" * 32]),
    made_at_ms=st.integers(0, 3),
    key_id=st.sampled_from(["0" * 32, "1" * 32]),
    signature=st.sampled_from([b"s" * 64, b"t" * 64]),
)
EVIDENCE = st.builds(
    SharingEvidence,
    sharing=st.sampled_from([SharingClass.FRESH, SharingClass.AGREED]),
    row=TEXTS,
    claims=st.lists(CLAIMS, max_size=3).map(tuple),
)
RECORDS = st.builds(
    ResultRecord,
    exit_code=st.integers(-2, 2),
    stdout=DATA,
    stderr=DATA,
    outputs=OUTPUTS,
    isolation=st.sampled_from(Isolation),
    reuse=st.sampled_from(GuestReuse),
    guest_id=TEXTS,
    guest_execs_before=st.integers(0, 3),
    worker=TEXTS,
    image=TEXTS,
    reason=TEXTS,
    queued_at=TIMES,
    started_at=TIMES,
    completed_at=TIMES,
    kernel_digest=TEXTS,
    agent_digest=TEXTS,
    lineage_digest=TEXTS,
    evidence=st.none() | EVIDENCE,
)
SCOPES = st.builds(
    ResultScope,
    tenant=st.sampled_from([TenantId("a"), TenantId("b")]),
    action=DIGESTS,
    principal=TEXTS,
)
SIGNATURES = st.builds(
    ResultSignature,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.integers(0, 1 << 52),
    st.binary(min_size=64, max_size=64),
)
SIGNED = [f.name for f in fields(ResultRecord) if f.name not in {"inline", "signature"}]


def meant(record: ResultRecord, scope: ResultScope, signature: ResultSignature) -> object:
    """Return what a signature covers, computed the slow way."""
    is_private = record.reuse is GuestReuse.PRINCIPAL and record.evidence is None
    principal = scope.principal if is_private else None
    said = tuple(getattr(record, name) for name in SIGNED)
    return said, scope.tenant, scope.action, principal, signature.key_id, signature.signed_at_ms


@given(RECORDS, SCOPES, SIGNATURES, RECORDS, SCOPES, SIGNATURES)
def test_signed_bytes_are_equal_only_for_what_is_equal(
    one: ResultRecord,
    scope: ResultScope,
    signature: ResultSignature,
    other: ResultRecord,
    other_scope: ResultScope,
    other_signature: ResultSignature,
) -> None:
    same = signed_bytes(one, scope, signature) == signed_bytes(other, other_scope, other_signature)
    assert same == (meant(one, scope, signature) == meant(other, other_scope, other_signature))


@given(RECORDS, RECORDS, st.sampled_from(SIGNED), SCOPES, SIGNATURES)
def test_any_changed_field_changes_the_signed_bytes(
    one: ResultRecord,
    other: ResultRecord,
    name: str,
    scope: ResultScope,
    signature: ResultSignature,
) -> None:
    mixed = replace(one, **{name: getattr(other, name)})
    is_same = getattr(mixed, name) == getattr(one, name)
    assert (signed_bytes(mixed, scope, signature) == signed_bytes(one, scope, signature)) == is_same


@given(RECORDS, SCOPES, SIGNATURES)
def test_what_was_stored_and_read_has_the_same_signed_bytes(
    record: ResultRecord, scope: ResultScope, signature: ResultSignature
) -> None:
    signed = replace(record, signature=signature)
    read = parse_result(encode_result(signed))
    assert replace(read, inline={}) == signed  # an empty file is there as soon as it is named
    assert encode_result(read) == encode_result(signed)
    assert signed_bytes(read, scope, signature) == signed_bytes(record, scope, signature)
