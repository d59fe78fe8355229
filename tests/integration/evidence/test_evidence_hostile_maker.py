"""A maker of evidence whose key is pinned cannot make a row, a member or a verdict."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import Record, canonical, decode_record, signed_message
from hpcc.evidence.bundle import EvidenceContent, seal_evidence
from hpcc.evidence.forms.container import pack_files
from hpcc.evidence.forms.dsse import seal_statement
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.keys import PinnedKeys, key_id_of
from hpcc.evidence.making import ReadSubject, read_subject
from hpcc.evidence.model import Grade, ProvedRow
from hpcc.evidence.verify import verify_evidence
from hpcc_testkit.evidence.made import (
    MAKER,
    MadeEvidence,
    guest_row,
    library,
    made_evidence,
    pinned,
    raw,
    trail_of,
)
from hpcc_testkit.farm.audit_rows import KEY

OBJECTS = {f"object-with-a-long-name-{n}.o": b"object %d\n" % n for n in range(3)}
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@pytest.fixture
async def made(tmp_path: Path) -> MadeEvidence:
    rows = [guest_row(n, {name: data}) for n, (name, data) in enumerate(OBJECTS.items())]
    (tmp_path / "libm.a").write_bytes(library(OBJECTS))
    return made_evidence(tmp_path / "libm.a", [await trail_of(tmp_path / "trail", rows)])


@pytest.fixture
def subject(made: MadeEvidence, tmp_path: Path) -> ReadSubject:
    assert made.evidence.coverage().is_proved
    return read_subject(tmp_path / "libm.a")


def refusal(evidence: EvidenceContent, subject: ReadSubject) -> str:
    """Return why evidence that its maker signed anew is refused."""
    data = pack_files(seal_evidence(evidence, MAKER.sign))
    with pytest.raises(EvidenceDamagedError) as caught:
        verify_evidence(data, subject, pinned())
    return str(caught.value)


def with_row(made: MadeEvidence, change: Callable[[ProvedRow], ProvedRow]) -> EvidenceContent:
    first, *rest = made.evidence.rows
    return replace(made.evidence, rows=(change(first), *rest))


def resigned(made: MadeEvidence, name: str, data: bytes) -> bytes:
    """Return the evidence with another file, which the maker's summary then names."""
    files = {**made.files, name: data}
    summary = json.loads(base64.b64decode(json.loads(files["vsa.dsse.json"])["payload"]))
    for attestation in summary["predicate"]["inputAttestations"]:
        content = files[attestation["uri"]]
        attestation["digest"] = {"sha256": hashlib.sha256(content).hexdigest()}
    key_id = key_id_of(raw(MAKER))
    files["vsa.dsse.json"] = seal_statement(canonical(summary), key_id, MAKER.sign)
    return pack_files(files)


def changed(record: Record, old: bytes, new: bytes) -> Record:
    assert old in record.data
    return decode_record(record.data.replace(old, new), record.signature)


def test_a_row_that_was_changed_has_no_signature_of_its_worker(
    made: MadeEvidence, subject: ReadSubject
) -> None:
    forged = with_row(
        made, lambda row: replace(row, record=changed(row.record, b"qemu/tcg", b"qemu/kvm"))
    )
    assert "line 1 of records.dsse.jsonl: the signature is wrong" in refusal(forged, subject)


def test_a_row_that_another_key_signed_is_refused(made: MadeEvidence, subject: ReadSubject) -> None:
    def sign(row: ProvedRow) -> ProvedRow:
        record = changed(row.record, b"qemu/tcg", b"qemu/kvm")
        return replace(
            row, record=replace(record, signature=OTHER.sign(signed_message(record.data)))
        )

    assert "the signature is wrong" in refusal(with_row(made, sign), subject)


def test_a_key_that_the_maker_invented_is_refused_where_workers_are_pinned(
    made: MadeEvidence, subject: ReadSubject
) -> None:
    tree = replace(made.evidence.trees[0], key=raw(OTHER))
    rows = tuple(
        replace(
            row, record=replace(row.record, signature=OTHER.sign(signed_message(row.record.data)))
        )
        for row in made.evidence.rows
    )
    forged = replace(made.evidence, trees=(tree,), rows=rows)
    data = pack_files(seal_evidence(forged, MAKER.sign))
    with pytest.raises(EvidenceDamagedError, match="worker w1 is not a pinned one"):
        verify_evidence(data, subject, PinnedKeys((raw(MAKER),), {"w1": raw(KEY)}))


def test_a_row_is_only_where_its_proof_leads(made: MadeEvidence, subject: ReadSubject) -> None:
    one, two, _ = made.evidence.rows
    wrong = with_row(made, lambda row: replace(row, proof=two.proof))
    assert "row 0 is not in the worker's tree" in refusal(wrong, subject)
    moved = with_row(made, lambda row: replace(row, index=2, proof=two.proof))
    assert "row 0 is at another place of the tree" in refusal(moved, subject)
    twice = replace(made.evidence, rows=(one, one, *made.evidence.rows[1:]))
    assert "is not in its place" in refusal(twice, subject)


def test_a_row_that_no_part_needs_is_refused(made: MadeEvidence, subject: ReadSubject) -> None:
    part, *rest = made.evidence.making.parts
    fewer = replace(made.evidence, making=replace(made.evidence.making, parts=tuple(rest)))
    assert "the library has other members" in refusal(fewer, subject)
    whole = ReadSubject(subject.name, subject.digest, tuple(rest))
    assert "rows that no part needs" in refusal(fewer, whole)
    assert part not in rest


def test_a_statement_that_says_more_than_its_row_is_refused(
    made: MadeEvidence, subject: ReadSubject
) -> None:
    lines = made.files["objects.intoto.jsonl"].splitlines()
    payload = base64.b64decode(json.loads(lines[0])["payload"])
    lie = payload.replace(b"qemu/tcg", b"firecracker/kvm")
    lines[0] = seal_statement(lie, key_id_of(raw(MAKER)), MAKER.sign)
    data = resigned(made, "objects.intoto.jsonl", b"".join(line + b"\n" for line in lines))
    with pytest.raises(EvidenceDamagedError, match="does not follow from its row"):
        verify_evidence(data, subject, pinned())


@pytest.mark.parametrize("name", ["README.txt", "sbom.cdx.json", "maker.pem", "worker.w1.pem"])
def test_a_file_that_says_something_else_is_refused(
    made: MadeEvidence, subject: ReadSubject, name: str
) -> None:
    data = resigned(made, name, made.files[name] + b"\n")
    with pytest.raises(EvidenceDamagedError, match="is not what follows from the rows"):
        verify_evidence(data, subject, pinned())


def test_a_verdict_that_does_not_follow_is_refused(tmp_path: Path, made: MadeEvidence) -> None:
    more = tmp_path / "more.a"
    more.write_bytes(library({**OBJECTS, "more.o": b"more"}))
    found = made_evidence(more, [tmp_path / "trail"])
    assert not found.evidence.coverage().is_proved
    summary = json.loads(base64.b64decode(json.loads(found.files["vsa.dsse.json"])["payload"]))
    assert summary["predicate"]["verificationResult"] == "FAILED"
    assert summary["predicate"]["verifiedLevels"] == ["FAILED"]
    summary["predicate"]["verificationResult"] = "PASSED"
    forged = seal_statement(canonical(summary), key_id_of(raw(MAKER)), MAKER.sign)
    data = pack_files({**found.files, "vsa.dsse.json": forged})
    with pytest.raises(EvidenceDamagedError, match="the summary is not what follows"):
        verify_evidence(data, read_subject(more), pinned())


def test_a_library_with_an_unknown_member_is_not_taken_for_a_linked_file(
    made: MadeEvidence, tmp_path: Path
) -> None:
    """A link's parts are a claim, so a maker could leave the member out."""
    more = tmp_path / "more.a"
    more.write_bytes(library({**OBJECTS, "more.o": b"more"}))
    subject = read_subject(more)
    claim = replace(made.evidence.making, grade=Grade.CLAIMED, digest=subject.digest)
    forged = replace(made.evidence, making=claim)
    assert forged.coverage().is_proved
    assert "only a library is made of members, and each library is" in refusal(forged, subject)


def test_rows_of_an_earlier_format_cannot_be_put_in(
    made: MadeEvidence, subject: ReadSubject
) -> None:
    unsigned = with_row(made, lambda row: replace(row, record=replace(row.record, signature=b"")))
    assert "line 1 of records.dsse.jsonl is not a DSSE envelope" in refusal(unsigned, subject)
