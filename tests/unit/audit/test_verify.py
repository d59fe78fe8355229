"""`verify_trail` on trails that the tests write byte by byte, without the writer.

Each test damages a good trail in one way. tests/integration/audit does the same to trails of the
real writer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.audit import verify
from hpcc.audit.base.canonical import (
    GENESIS,
    MAX_RECORD_BYTES,
    AuditDamagedError,
    Record,
    encode_record,
)
from hpcc.audit.base.frames import LENGTH, frame_of
from hpcc.audit.base.heads import HeadSigner, head_of_table, head_text
from hpcc.audit.base.segments import (
    Seal,
    seal_path,
    segment_path,
    spool_path,
    write_seal,
)
from hpcc.core import CallerError, NotFoundError
from hpcc.files.whole import no_fault
from hpcc.ports import SecurityEvent, SignedHead
from hpcc_testkit.suite.examples import examples

ONE, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
# Records of two sealed segments, and of the open one.
SIZES = (3, 3, 3)
COUNT = sum(SIZES)


@dataclass
class Trail:
    """A trail and its facts. `anchors[n]` is signed after `n` records."""

    directory: Path
    records: list[Record] = field(default_factory=list)
    anchors: list[SignedHead] = field(default_factory=list)

    def refusal(self, *anchors: SignedHead) -> str:
        with pytest.raises(AuditDamagedError) as caught:
            verify.verify_trail(self.directory, anchors)
        return str(caught.value)


def event(number: int) -> SecurityEvent:
    return SecurityEvent(name="token-refused", at=float(number))


def retired(*fields: tuple[str, str]) -> SecurityEvent:
    return SecurityEvent(name="audit-retired", at=0.0, fields=fields)


def write(
    directory: Path,
    *,
    sizes: Sequence[int] = SIZES,
    events: Callable[[int], SecurityEvent] = event,
    workers: Callable[[int], str] = lambda _: "w1",
    keys: Callable[[int], Ed25519PrivateKey] = lambda _: ONE,
) -> Trail:
    """Write a trail of segments with so many records; all but the last segment are sealed.

    `events` and `workers` are given per record, `keys` per segment.
    """
    directory.mkdir(exist_ok=True)
    trail, head = Trail(directory), GENESIS
    trail.anchors.append(HeadSigner("w1", ONE).sign(0, GENESIS, 0.0))
    for segment, size in enumerate(sizes):
        first, before, data = len(trail.records), head, b""
        for number in range(first, first + size):
            record = encode_record(
                events(number), sequence=number, previous=head, worker=workers(number)
            )
            head, data = record.hash, data + frame_of(record)
            trail.records.append(record)
            trail.anchors.append(HeadSigner("w1", ONE).sign(number + 1, head, 0.0))
        if segment == len(sizes) - 1:
            spool_path(directory).write_bytes(data)
            break
        segment_path(directory, first).write_bytes(data)
        signed = HeadSigner(workers(first), keys(segment)).sign(first + size, head, 0.0)
        seal = Seal(first=first, previous=before, size_bytes=len(data), signed=signed)
        write_seal(directory, seal, no_fault)
    return trail


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return write(tmp_path / "trail")


# ---- good trails ----


def test_a_whole_trail_is_good(trail: Trail) -> None:
    key = HeadSigner("w1", ONE).public_key.hex()
    head = trail.records[-1].hash
    assert verify.verify_trail(trail.directory) == verify.Verified(
        count=COUNT, head=head, seals=2, segments=2, unsigned=COUNT, unproved=3, keys=(key,)
    )
    assert verify.verify_trail(trail.directory, trail.anchors) == verify.Verified(
        count=COUNT, head=head, seals=2, segments=2, unsigned=COUNT, anchors=COUNT + 1, newest_anchor=COUNT,
        keys=(key,),
    )  # fmt: skip


def test_a_trail_that_was_sealed_a_moment_ago_has_no_open_segment(tmp_path: Path) -> None:
    trail = write(tmp_path / "trail", sizes=(3, 2, 0))
    spool_path(trail.directory).unlink()
    assert verify.verify_trail(trail.directory, trail.anchors).count == 5


def test_a_copy_that_cannot_be_changed_is_read_and_left_as_it_is(trail: Trail) -> None:
    def picture() -> dict[str, tuple[int, int, bytes]]:
        return {
            path.name: (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes())
            for path in trail.directory.iterdir()
        }

    for path in trail.directory.iterdir():
        path.chmod(0o444)
    trail.directory.chmod(0o555)
    before, changed = picture(), trail.directory.stat().st_mtime_ns
    try:
        assert verify.verify_trail(trail.directory, trail.anchors).count == COUNT
        assert (picture(), trail.directory.stat().st_mtime_ns) == (before, changed)
    finally:
        trail.directory.chmod(0o755)


def test_a_record_that_is_half_written_is_not_counted(trail: Trail) -> None:
    """A power cut can leave one; the writer removes it at its next start."""
    with spool_path(trail.directory).open("ab") as file:
        file.write(LENGTH.pack(100) + b"{")
    assert verify.verify_trail(trail.directory, trail.anchors).count == COUNT


@pytest.mark.parametrize("what", ["absent", "empty", "file"])
def test_where_nothing_was_recorded_there_is_nothing_to_verify(tmp_path: Path, what: str) -> None:
    place = tmp_path / "trail"
    if what == "file":
        place.touch()
    elif what == "empty":
        place.mkdir()
        (place / "lock").touch()
    with pytest.raises(NotFoundError, match="no audit trail"):
        verify.verify_trail(place)


# ---- damage to records ----


@settings(max_examples=examples(40))
@given(st.data())
def test_a_changed_byte_anywhere_is_found_with_the_newest_anchor(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    trail = write(tmp_path_factory.mktemp("trail"))
    path = data.draw(st.sampled_from(sorted(trail.directory.iterdir())))
    content = bytearray(path.read_bytes())
    # With this bit, no letter of a hex number becomes the same letter in another case.
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1
    path.write_bytes(content)
    assert trail.refusal(trail.anchors[-1])


SEALED, OPEN = "sealed-00000000000000000003.hpcc", "spool.hpcc"


def frames_of(path: Path) -> list[bytes]:
    data, found = path.read_bytes(), []
    while data:
        size = LENGTH.size + LENGTH.unpack_from(data)[0] + 1
        found.append(data[:size])
        data = data[size:]
    return found


@pytest.mark.parametrize("name", [SEALED, OPEN])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda one, two: [one.replace(b"refused", b"REFUSED"), two], "chain is broken at record"),
        (lambda one, two: [two, one], "chain is broken at record"),
        (lambda one, two: [two], "chain is broken at record"),
        (lambda one, two: [one, one, two], "chain is broken at record"),
        (lambda one, two: [one[:-1] + b"x", two], "frame without an end"),
        (lambda one, two: [LENGTH.pack(MAX_RECORD_BYTES + 1), one, two], "impossible length"),
        (lambda one, two: [LENGTH.pack(2) + b"[]\n", one, two], "another form"),
        (lambda one, two: [LENGTH.pack(2) + b"{[\n", one, two], "not JSON"),
    ],
    ids=["changed", "reordered", "removed", "repeated", "no-end", "too-long", "form", "json"],
)
def test_each_damage_is_named_with_its_file(
    trail: Trail, name: str, damage: Callable[[bytes, bytes], list[bytes]], said: str
) -> None:
    path = trail.directory / name
    first, one, two = frames_of(path)
    path.write_bytes(b"".join([first, *damage(one, two)]))
    refusal = trail.refusal()
    assert refusal.startswith(f"{path}: ")
    assert said in refusal


def test_a_record_of_the_largest_size_may_be_announced(trail: Trail) -> None:
    """The bound is inclusive: verify reports this frame only as torn."""
    with spool_path(trail.directory).open("ab") as file:
        file.write(LENGTH.pack(MAX_RECORD_BYTES) + b"{")
    assert verify.verify_trail(trail.directory).count == COUNT


def test_a_cut_tail_is_found_by_an_anchor_only(trail: Trail) -> None:
    path = spool_path(trail.directory)
    path.write_bytes(b"".join(frames_of(path)[:-1]))
    assert verify.verify_trail(trail.directory).count == COUNT - 1
    assert verify.verify_trail(trail.directory, trail.anchors[:-1]).count == COUNT - 1
    assert "the end is missing" in trail.refusal(trail.anchors[-1])


def test_a_sealed_segment_that_was_cut_is_named(trail: Trail) -> None:
    path = trail.directory / SEALED
    path.write_bytes(frames_of(path)[0])
    refusal = trail.refusal()
    assert refusal.startswith(f"{path}: ")
    assert "records before 6 are missing, or were changed" in refusal


def test_bytes_behind_the_last_record_of_a_sealed_segment_are_found(trail: Trail) -> None:
    path = trail.directory / SEALED
    path.write_bytes(path.read_bytes() + b"\0")
    assert "the segment at record 3 has another size" in trail.refusal()


def test_records_of_two_workers_are_no_trail(tmp_path: Path) -> None:
    trail = write(tmp_path / "trail", workers=lambda number: f"w{number // 6}")
    assert "records of several workers" in trail.refusal()


def test_a_removed_segment_of_another_worker_counts_as_another_worker(tmp_path: Path) -> None:
    trail = write(
        tmp_path / "trail",
        workers=lambda number: "w0" if number < 3 else "w1",
        events=lambda number: retired(("until", "3")) if number == 4 else event(number),
    )
    segment_path(trail.directory, 0).unlink()
    assert "records of several workers" in trail.refusal()


def test_an_unsigned_event_of_retention_counts_only_where_a_head_covers_it(tmp_path: Path) -> None:
    trail = write(
        tmp_path / "trail",
        events=lambda number: retired(("until", "3")) if number == 6 else event(number),
    )
    segment_path(trail.directory, 0).unlink()
    assert "record 6 says that it did, but it is not signed" in trail.refusal()
    assert "record 6 says that it did" in trail.refusal(trail.anchors[6])
    assert verify.verify_trail(trail.directory, [trail.anchors[7]]).first == 3


# ---- damage to segments and seals ----


def test_a_segment_missing_in_the_middle_is_named_by_its_first_record(trail: Trail) -> None:
    (trail.directory / SEALED).unlink()
    assert "records from 3 on are missing in the middle" in trail.refusal()


def test_a_segment_missing_at_the_beginning_is_no_retention(trail: Trail) -> None:
    segment_path(trail.directory, 0).unlink()
    assert "records before 3 are missing, and retention did not remove them" in trail.refusal()


@pytest.mark.parametrize("first", [0, 3])
def test_a_segment_missing_with_its_seal_is_found(trail: Trail, first: int) -> None:
    segment_path(trail.directory, first).unlink()
    seal_path(trail.directory, first).unlink()
    assert f"records from {first} on are missing, and later ones are not" in trail.refusal()


def test_a_missing_open_segment_is_found_by_an_anchor(trail: Trail) -> None:
    spool_path(trail.directory).unlink()
    assert verify.verify_trail(trail.directory).count == 6
    assert "counts 9 records, this trail has 6" in trail.refusal(trail.anchors[-1])


def test_segments_in_each_others_place_are_found(trail: Trail) -> None:
    one, two = segment_path(trail.directory, 0), segment_path(trail.directory, 3)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert "the chain is broken at record 0" in trail.refusal()


def test_seals_in_each_others_place_are_found(trail: Trail) -> None:
    one, two = seal_path(trail.directory, 0), seal_path(trail.directory, 3)
    one.write_bytes(two.read_bytes())
    assert "the seal at record 0 is of another place" in trail.refusal()


@pytest.mark.parametrize(
    "junk", [b"", b"[]", b"{}", b"{", b"[" * 4000, b" " * 5000], ids=lambda junk: str(len(junk))
)
def test_a_seal_that_is_none_is_named_by_its_record(trail: Trail, junk: bytes) -> None:
    seal_path(trail.directory, 3).write_bytes(junk)
    assert "the seal at record 3" in trail.refusal()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("format", 2, "another form"),
        ("first", "3", "another form"),
        ("first", 2, "another place"),
        ("size_bytes", 1.0, "another form"),
        ("size_bytes", 1, "another size"),
        ("previous", GENESIS, "another place"),
        ("previous", 0, "another form"),
        ("extra", 1, "another form"),
    ],
)
def test_every_field_of_a_seal_counts(trail: Trail, name: str, value: object, said: str) -> None:
    path = seal_path(trail.directory, 3)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), name: value}))
    assert said in trail.refusal()


def test_a_head_of_a_seal_of_format_1_is_signed(trail: Trail) -> None:
    path = seal_path(trail.directory, 3)
    table = json.loads(path.read_bytes())
    path.write_text(json.dumps({**table, "signed": {**table["signed"], "at": 2.5}}))
    assert "the signature is wrong" in trail.refusal()


def test_an_overlong_seal_is_not_read_to_its_end(trail: Trail) -> None:
    path = seal_path(trail.directory, 3)
    path.write_bytes(path.read_bytes() + b" " * 5000)
    assert "the seal at record 3 has another form" in trail.refusal()


# ---- keys ----


def test_a_seal_with_a_foreign_key_is_found_without_an_anchor(tmp_path: Path) -> None:
    trail = write(tmp_path / "trail", keys=lambda segment: (ONE, OTHER)[segment])
    assert "signed by different keys" in trail.refusal()


def test_a_trail_that_was_written_anew_with_another_key_is_found_by_an_anchor(
    tmp_path: Path,
) -> None:
    trail = write(tmp_path / "trail", keys=lambda _: OTHER)
    assert verify.verify_trail(trail.directory).keys == (HeadSigner("w1", OTHER).public_key.hex(),)
    assert "signed by different keys" in trail.refusal(trail.anchors[-1])


def test_anchors_of_two_keys_are_of_two_trails(tmp_path: Path) -> None:
    trail = write(tmp_path / "trail", sizes=(3,))  # no seal
    anchor = HeadSigner("w1", OTHER).sign(3, trail.records[-1].hash, 0.0)
    assert verify.verify_trail(trail.directory, [anchor]).anchors == 1
    assert "signed by different keys" in trail.refusal(trail.anchors[2], anchor)


# ---- anchors ----


@pytest.mark.parametrize("count", range(COUNT + 1))
def test_an_anchor_with_another_head_is_found_wherever_it_is(trail: Trail, count: int) -> None:
    wrong = HeadSigner("w1", ONE).sign(count, "ab" * 32, 0.0)
    assert f"record {count - 1} differs from the scheduler's anchor" in trail.refusal(wrong)


def test_an_anchor_of_more_records_than_are_here_is_found(trail: Trail) -> None:
    more = HeadSigner("w1", ONE).sign(COUNT + 1, "ab" * 32, 0.0)
    assert f"counts {COUNT + 1} records, this trail has {COUNT}" in trail.refusal(more)


def test_an_anchor_whose_signature_is_wrong_is_refused(trail: Trail) -> None:
    forged = replace(trail.anchors[-1], signature=bytes(64))
    assert "signature is wrong" in trail.refusal(forged)


def test_two_anchors_of_one_count_must_agree(trail: Trail) -> None:
    twin = replace(trail.anchors[4])
    assert verify.verify_trail(trail.directory, [trail.anchors[4], twin]).anchors == 1
    wrong = HeadSigner("w1", ONE).sign(4, "ab" * 32, 0.0)
    assert "two anchors of 4 records differ" in trail.refusal(trail.anchors[4], wrong)


def test_anchors_of_two_workers_are_not_mixed(trail: Trail) -> None:
    other = HeadSigner("w2", ONE).sign(1, "ab" * 32, 0.0)
    with pytest.raises(CallerError, match="several workers"):
        verify.verify_trail(trail.directory, [trail.anchors[1], other])


# ---- retention ----


def retained(tmp_path: Path, *fields: tuple[str, str]) -> Trail:
    """Make a trail without its first segment; its last record is the one that retention writes."""
    trail = write(
        tmp_path / "trail",
        events=lambda number: retired(*fields) if number == COUNT - 1 else event(number),
    )
    segment_path(trail.directory, 0).unlink()
    return trail


@pytest.mark.parametrize("until", ["3", "5", str(1 << 64)])
def test_what_retention_removed_is_not_missing(tmp_path: Path, until: str) -> None:
    trail = retained(tmp_path, ("head", "x"), ("until", until))
    found = verify.verify_trail(trail.directory, trail.anchors)
    assert (found.first, found.count, found.seals) == (3, COUNT, 2)
    # Of 1 and 2 records no hash is kept; that of 3 is in the seal.
    assert (found.anchors, found.older_anchors) == (COUNT - 1, 2)


@pytest.mark.parametrize(
    "fields", [(), (("until", "2"),), (("until", "-3"),), (("until", "x"),), (("from", "3"),)]
)
def test_what_retention_did_not_remove_is_missing(
    tmp_path: Path, fields: tuple[tuple[str, str], ...]
) -> None:
    assert "retention did not remove them" in retained(tmp_path, *fields).refusal()


def test_an_open_segment_that_begins_too_late_is_a_gap(trail: Trail) -> None:
    path = spool_path(trail.directory)
    path.write_bytes(b"".join(frames_of(path)[1:]))
    assert "records from 6 on are missing, and later ones are not" in trail.refusal()


def test_another_event_that_says_until_is_no_retention(tmp_path: Path) -> None:
    said = SecurityEvent(name="token-refused", at=0.0, fields=(("until", "3"),))
    trail = write(tmp_path / "trail", events=lambda _: said)
    segment_path(trail.directory, 0).unlink()
    assert "retention did not remove them" in trail.refusal()


def test_the_farthest_retention_counts(tmp_path: Path) -> None:
    trail = write(
        tmp_path / "trail", events=lambda number: retired(("until", "3" if number == 5 else "1"))
    )
    segment_path(trail.directory, 0).unlink()
    assert verify.verify_trail(trail.directory).first == 3


# ---- files of anchors ----


def test_a_file_of_anchors_reads_back_by_worker(trail: Trail, tmp_path: Path) -> None:
    other = HeadSigner("w2", ONE).sign(1, "ab" * 32, 1.0)
    file = tmp_path / "anchors"
    file.write_bytes(b"\n\n".join(head_text(a) for a in [*trail.anchors, other]) + b"\n \n")
    assert verify.read_anchors(file) == [*trail.anchors, other]
    assert verify.read_anchors(file, "w1") == trail.anchors
    with pytest.raises(CallerError, match="no anchor of worker 'w3'"):
        verify.read_anchors(file, "w3")


def test_a_file_without_anchors_is_nothing_to_compare_with(tmp_path: Path) -> None:
    file = tmp_path / "anchors"
    file.write_bytes(b"\n")
    with pytest.raises(CallerError, match="holds no anchor: nothing to compare"):
        verify.read_anchors(file)
    with pytest.raises(CallerError, match="cannot read"):
        verify.read_anchors(tmp_path / "absent")


def test_a_file_of_anchors_is_bounded(
    trail: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "anchors"
    line = head_text(trail.anchors[-1])
    file.write_bytes(line)
    monkeypatch.setattr(verify, "MAX_ANCHOR_FILE_BYTES", len(line))
    assert verify.read_anchors(file) == [trail.anchors[-1]]
    with file.open("ab") as more:
        more.write(b"\n")
    with pytest.raises(CallerError, match="too large"):
        verify.read_anchors(file)


@pytest.mark.parametrize("junk", [b"{}", b"[1]", b"nonsense", b"[" * 100_000], ids=len)
def test_a_line_that_is_no_anchor_is_damage(tmp_path: Path, junk: bytes) -> None:
    file = tmp_path / "anchors"
    file.write_bytes(junk)
    with pytest.raises(AuditDamagedError):
        verify.read_anchors(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", "1"), ("at", None), ("at", True), ("at", 10**400), ("count", 1.0), ("count", True),
        ("format", 2), ("head", 1), ("key", "zz"), ("key", "a"), ("signature", "zz"),
        ("signature", None), ("worker", 1), ("extra", 1),
    ],
)  # fmt: skip
def test_every_field_of_an_anchor_has_its_type(trail: Trail, name: str, value: object) -> None:
    table = json.loads(head_text(trail.anchors[-1]))
    assert head_of_table(table) == trail.anchors[-1]
    with pytest.raises(AuditDamagedError, match="other fields"):
        head_of_table({**table, name: value})
    with pytest.raises(AuditDamagedError, match="other fields"):
        head_of_table({key: kept for key, kept in table.items() if key != name} | {"x": 1})
