"""Nobody without the worker's key puts a record into a trail, and an older trail goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc import __version__
from hpcc.audit.base.canonical import (
    MAX_RECORD_BYTES,
    AuditDamagedError,
    Record,
    canonical,
    decode_record,
    encode_record,
    signed_message,
)
from hpcc.audit.base.frames import frame_of, read_frames
from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import Placed, seal_path, seals, segment_path, spool_path
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.base.trail import walk
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.tail import ForeignTailError
from hpcc.audit.verify import verify_trail
from hpcc.cli.main import main
from hpcc.ports import SecurityEvent
from hpcc_testkit.farm.audit_rows import KEY, SMALL, opened, row, written
from hpcc_testkit.hostile.forged_indexes import strip_index

OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir()
    return tmp_path / "keys" / "mark"


@pytest.fixture
async def trail(tmp_path: Path, mark: Path) -> Path:
    directory = tmp_path / "trail"
    async with opened(directory, limits=SMALL, mark=mark) as log:
        for number in range(10):
            await log.append(row(number))
    assert list(directory.glob("sealed-*.hpcc"))
    assert spool_path(directory).stat().st_size > 0
    return directory


def records(directory: Path) -> list[Record]:
    return [item.record for item in walk(directory) if isinstance(item, Placed)]


def next_record(directory: Path, **changes: object) -> Record:
    last = records(directory)[-1]
    return encode_record(
        row(99, **changes), sequence=last.sequence + 1, previous=last.hash, worker="w1"
    )


def signed(record: Record, key: Ed25519PrivateKey) -> Record:
    return replace(record, signature=key.sign(signed_message(record.data)))


def append(directory: Path, record: Record) -> None:
    with spool_path(directory).open("ab") as file:
        file.write(frame_of(record))


def content(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name != "lock"}


async def refuses(directory: Path, mark: Path | None) -> str:
    before = content(directory)
    with pytest.raises(ForeignTailError) as caught:
        async with opened(directory, limits=SMALL, mark=mark):
            pass
    assert content(directory) == before
    assert caught.value.reason == "audit-foreign-tail"
    return str(caught.value)


async def test_each_frame_has_a_signature_that_dsse_defines(trail: Path) -> None:
    """OpenSSL's Ed25519 checks the bytes that the specification names, written here anew."""
    kind = b"application/vnd.hpcc.audit-record+json"
    for record in records(trail):
        message = b" ".join(
            (b"DSSEv1", str(len(kind)).encode(), kind, str(len(record.data)).encode(), record.data)
        )
        KEY.public_key().verify(record.signature, message)
    verified = verify_trail(trail)
    assert (verified.signed, verified.unsigned) == (11, 0)


async def test_unsigned_tail_is_not_adopted(trail: Path, mark: Path) -> None:
    append(trail, next_record(trail))
    for known in (mark, None):
        why = await refuses(trail, known)
        assert "record 11 at byte" in why
        assert f"(trails of format 1) wrote it after hpcc {__version__} (format 2)" in why
    for command in (["list", "-n", "100"], ["export"], ["verify"]):
        assert main(["audit", *command, "--directory", str(trail)]) == 1


async def test_a_tail_that_another_key_signed_is_not_adopted(
    trail: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(trail, signed(next_record(trail, principal="mallory"), OTHER))
    for known in (mark, None):
        assert "is not signed by w1" in await refuses(trail, known)
    for command in (["list", "-n", "100"], ["export"], ["verify"]):
        assert main(["audit", *command, "--directory", str(trail)]) == 1
        out, err = capsys.readouterr()
        assert "mallory" not in out
        assert "record 11 has a wrong signature" in err


async def test_a_signature_of_another_record_is_not_good_for_this_one(
    trail: Path, mark: Path
) -> None:
    append(trail, replace(next_record(trail), signature=records(trail)[-1].signature))
    assert "record 11" in await refuses(trail, mark)


async def test_a_rewritten_open_segment_is_not_adopted(trail: Path, mark: Path) -> None:
    """Without signatures, and with those of another key: of all records since the last seal."""
    last = list(seals(trail))[-1]
    for key in (None, OTHER):
        copy = trail.with_name(f"copy-{key is None}")
        shutil.copytree(trail, copy)
        record = encode_record(row(99), sequence=last.end, previous=last.signed.head, worker="w1")
        spool_path(copy).write_bytes(frame_of(signed(record, key) if key else record))
        assert "is not signed by w1" in await refuses(copy, mark)
        with pytest.raises(AuditDamagedError):
            verify_trail(copy)
        with pytest.raises(AuditDamagedError):
            list(TrailReader(copy).find(Query()))


async def test_a_trail_that_was_cut_to_nothing_and_written_unsigned_is_not_adopted(
    trail: Path, mark: Path
) -> None:
    """Then no seal says that records are signed. The file beside the key does."""
    for name in content(trail):
        (trail / name).unlink()
    record = encode_record(row(0), sequence=0, previous="0" * 64, worker="w1")
    spool_path(trail).write_bytes(frame_of(record))
    assert "record 0 at byte 0" in await refuses(trail, mark)


async def test_seals_of_the_earlier_format_do_not_make_unsigned_records_good(trail: Path) -> None:
    """Of a seal of format 2 the head stays signed when the rest is taken away."""
    for seal in list(seals(trail)):
        strip_index(trail, seal.first, KEY)
    append(trail, next_record(trail))
    await refuses(trail, None)
    with pytest.raises(AuditDamagedError, match="is not signed, and should be"):
        verify_trail(trail)
    spool_path(trail).write_bytes(b"")
    append(trail, next_record(trail))
    with pytest.raises(AuditDamagedError, match="is not signed, and should be"):
        list(TrailReader(trail).find(Query()))


def unsigned(directory: Path, rows: int) -> None:
    """Write an open segment as an earlier version did."""
    directory.mkdir()
    head, data = "0" * 64, b""
    for number in range(rows):
        record = encode_record(row(number), sequence=number, previous=head, worker="w1")
        head, data = record.hash, data + frame_of(record)
    spool_path(directory).write_bytes(data)


async def test_an_older_trail_goes_on_and_its_rows_are_marked(
    tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "old"
    unsigned(directory, 5)
    async with opened(directory, mark=mark) as log:
        await log.append(row(5, row_id="ab" * 16))
    (seal,) = seals(directory)
    assert (seal.end, seal.is_signing, seal.signed_from) == (5, True, 5)
    assert mark.is_file()  # noqa: ASYNC240 - a test
    verified = verify_trail(directory)
    assert (verified.unsigned, verified.signed, verified.count) == (5, 2, 7)
    (event,) = TrailReader(directory).find(Query(kind="event"))
    assert (event.sequence, event.body["name"]) == (5, "audit-signing")
    assert event.body["fields"] == [["first", "5"], ["version", __version__]]
    assert mark.read_text().startswith("records are signed from number 5 on")  # noqa: ASYNC240 - a test
    where = ["--directory", str(directory)]
    assert main(["audit", "verify", *where]) == 0
    out = capsys.readouterr().out
    assert "2 records have their writer's signature" in out
    assert "5 unsigned rows (format 1), of an earlier version" in out
    assert main(["audit", "show", "row_id-2", *where]) == 0
    assert "signature:            unsigned row (format 1)" in capsys.readouterr().out
    assert main(["audit", "show", "abab", *where]) == 0
    assert "unsigned" not in capsys.readouterr().out
    async with opened(directory, mark=mark) as log:
        await log.append(row(6))
    assert verify_trail(directory).count == 8


@pytest.mark.parametrize(
    "step", ["segment-rename", "index-write", "seal-write", "seal-rename", "open"]
)
async def test_a_disk_that_fails_while_an_older_trail_is_taken_over_stops_nothing_for_good(
    tmp_path: Path, mark: Path, step: str
) -> None:
    directory, hits = tmp_path / "old", 0
    unsigned(directory, 5)

    def fault(at: str) -> None:
        nonlocal hits
        if at == step:
            hits += 1
            raise OSError(28, "no space")

    with pytest.raises(Exception, match="no space"):
        async with opened(directory, mark=mark, fault=fault):
            pass
    assert hits == 1
    assert not mark.exists()  # noqa: ASYNC240 - a test
    await written(directory, 2, start=5)
    assert verify_trail(directory).count == 7


async def test_the_bytes_of_a_torn_tail_are_kept_and_named(trail: Path, mark: Path) -> None:
    with spool_path(trail).open("ab") as file:
        file.write(b"\0\0\1\0half of a record")
    async with opened(trail, limits=SMALL, mark=mark):
        pass
    (event,) = TrailReader(trail).find(Query(kind="event", name="audit-torn-tail"))
    fields = dict(event.body["fields"])  # type: ignore[call-overload]  # pairs, as it was written
    kept = (trail / fields["file"]).read_bytes()
    assert kept == b"\0\0\1\0half of a record"
    assert (fields["bytes"], fields["sha256"]) == ("20", hashlib.sha256(kept).hexdigest())
    assert verify_trail(trail).count == 12


async def test_a_length_that_hides_later_records_loses_none_of_their_bytes(
    trail: Path, mark: Path
) -> None:
    data = bytearray(spool_path(trail).read_bytes())
    data[0:4] = (0x01F00000).to_bytes(4, "big")
    spool_path(trail).write_bytes(data)
    async with opened(trail, limits=SMALL, mark=mark):
        pass
    (kept,) = trail.glob("torn-*")  # noqa: ASYNC240 - a test
    assert kept.read_bytes() == bytes(data)


async def test_a_sealed_segment_of_another_key_is_found_by_each_record(trail: Path) -> None:
    assert verify_trail(trail).keys == (HeadSigner("w1", KEY).public_key.hex(),)
    path = segment_path(trail, 0)
    data = path.read_bytes()
    first = records(trail)[0]
    path.write_bytes(data.replace(first.signature, bytes(64)))
    with pytest.raises(AuditDamagedError, match="record 0 has a wrong signature"):
        verify_trail(trail)


async def test_a_forged_record_is_not_shown_before_the_first_seal_either(
    tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "young"
    await written(directory, 3, limits=SpoolLimits())
    assert not list(seals(directory))
    append(directory, signed(next_record(directory, principal="mallory"), OTHER))
    for command in (["list"], ["export"], ["verify"]):
        assert main(["audit", *command, "--directory", str(directory)]) == 1
        out, err = capsys.readouterr()
        assert "mallory" not in out
        assert "has a wrong signature" in err
    await refuses(directory, mark)
    record = encode_record(row(0), sequence=0, previous="0" * 64, worker="w1")
    spool_path(directory).write_bytes(frame_of(record))
    for command in (["list"], ["export"], ["verify"]):
        assert main(["audit", *command, "--directory", str(directory)]) == 1
        assert "is not signed, and should be" in capsys.readouterr().err
    spool_path(directory).write_bytes(frame_of(signed(record, KEY)))
    for data in (None, b"junk"):
        (directory / "signer").unlink(missing_ok=True)
        if data is not None:
            (directory / "signer").write_bytes(data)
        for command in (["list"], ["export"], ["verify"]):
            assert main(["audit", *command, "--directory", str(directory)]) == 1


def strip(trail: Path, *, key: Ed25519PrivateKey | None = KEY) -> None:
    """Make a trail look like one of an earlier version: no signatures, and seals of format 1.

    With the key it is the trail of a version whose seals were of format 2. Their heads are signed,
    and their size is not.
    """
    for seal in list(seals(trail)):
        strip_index(trail, seal.first, key)
        path = seal_path(trail, seal.first)
        unsigned_frames(segment_path(trail, seal.first))
        table = json.loads(path.read_bytes())
        table["size_bytes"] = segment_path(trail, seal.first).stat().st_size
        path.write_bytes(canonical(table))
        path.with_suffix(".idx").unlink()
    unsigned_frames(spool_path(trail))
    (trail / "signer").unlink()


def unsigned_frames(path: Path) -> None:
    """Take the signatures of a segment away. The chain stays whole."""
    with path.open("rb") as file:
        frames = [frame_of(decode_record(frame.data)) for frame in read_frames(file)]
    path.write_bytes(b"".join(frames))


async def test_a_trail_without_its_signatures_is_told_apart_where_no_head_covers_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seals of format 2 do not sign the size of a segment: every signature can be taken away.

    The first version that signs records wrote no event about it.
    """
    trail = tmp_path / "trail"
    await written(trail, 10)
    forged = next_record(trail, principal="mallory")
    strip(trail)
    append(trail, forged)
    where = ["--directory", str(trail)]
    for command in (["list"], ["query", "--principal", "mallory"], ["export"], ["verify"]):
        main(["audit", *command, *where])
        assert "records have no signature, and no seal or anchor covers" in capsys.readouterr().err
    main(["audit", "query", "--principal", "principal-0", *where])
    assert not capsys.readouterr().err


async def test_a_trail_without_its_signatures_is_found_by_the_event_that_began_them(
    trail: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The event is in the chain, so a seal covers it, and nobody can take it away."""
    forged = next_record(trail, principal="mallory")
    strip(trail)
    append(trail, forged)
    where = ["--directory", str(trail)]
    for command in (["list"], ["query", "--principal", "mallory"], ["export"], ["verify"]):
        assert main(["audit", *command, *where]) == 1
        out, err = capsys.readouterr()
        assert "mallory" not in out
        assert "is not signed, and should be" in err
    with pytest.raises(AuditDamagedError):
        async with opened(trail, limits=SMALL, mark=mark):
            pass


def retire_by_hand(trail: Path) -> int:
    """Remove the first segment, and say in an unsigned event that retention did; its number."""
    first, last = next(seals(trail)), records(trail)[-1]
    fields = (("until", str(first.end)), ("head", first.signed.head))
    event = SecurityEvent(name="audit-retired", at=9.0, fields=fields)
    segment_path(trail, 0).unlink()
    append(trail, encode_record(event, sequence=last.sequence + 1, previous=last.hash, worker="w1"))
    return last.sequence + 1


@pytest.mark.parametrize("version", ["this", "format 2"])
async def test_an_unsigned_event_of_retention_hides_no_rows(
    trail: Path, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    """The event of signing goes with the first segment; no other record shows that it began."""
    if version == "format 2":
        strip(trail)
    number = retire_by_hand(trail)
    where = ["--directory", str(trail)]
    for command in (["query", "--principal", "principal-0"], ["list", "-n", "99"], ["verify"]):
        assert main(["audit", *command, *where]) == 1
        said = capsys.readouterr().err
        assert f"record {number} " in said
        assert "it was put in" in said


async def test_a_seal_of_an_earlier_format_is_none_of_this_version(trail: Path) -> None:
    """Without the key nobody makes one, and one of the worker's past fits only before."""
    await written(trail, 8, start=10)
    copy = trail.with_name("copy")
    shutil.copytree(trail, copy)
    strip(copy, key=None)
    with pytest.raises(AuditDamagedError, match="the signature is wrong"):
        verify_trail(copy)
    last = list(seals(trail))[-1]
    strip_index(trail, last.first, KEY)
    with pytest.raises(
        AuditDamagedError, match="does not say that each record from 0 on is signed"
    ):
        verify_trail(trail)


@pytest.mark.parametrize("name", ["size_bytes", "signed_from", "index", "previous", "at", "key"])
async def test_each_part_of_a_seal_is_signed(trail: Path, name: str) -> None:
    seal = next(seals(trail))
    path = seal_path(trail, seal.first)
    table = json.loads(path.read_bytes())
    new = {"index": None, "previous": "1" * 64, "key": "00" * 32, "at": 2.5}.get(name)
    path.write_bytes(
        canonical(
            {**table, name: new if name in {"index", "previous", "key", "at"} else table[name] + 1}
        )
    )
    with pytest.raises(AuditDamagedError, match="the seal at record 0"):
        verify_trail(trail)
    path.write_text(json.dumps(table))  # another spelling of the same
    with pytest.raises(AuditDamagedError, match="has another form"):
        verify_trail(trail)


async def test_a_sealed_segment_without_its_signatures_is_found(trail: Path) -> None:
    unsigned_frames(segment_path(trail, 0))
    with pytest.raises(AuditDamagedError, match="is not signed, and should be"):
        verify_trail(trail)


async def test_seals_of_format_2_are_bound_by_the_first_start(trail: Path, mark: Path) -> None:
    """From then on nobody can make them look older, or take signatures off their records."""
    await written(trail, 8, start=10)
    for seal in list(seals(trail)):
        strip_index(trail, seal.first, KEY, is_signing=True)
    before = list(seals(trail))
    async with opened(trail, limits=SMALL, mark=mark):
        pass
    after = list(seals(trail))
    assert after[: len(before)] == before
    assert [seal.signed_from for seal in after[len(before) :]] == [before[0].end]
    assert verify_trail(trail).signed == 19
    seal = after[1]
    unsigned_frames(segment_path(trail, seal.first))
    strip_index(trail, seal.first, KEY)
    table = json.loads(seal_path(trail, seal.first).read_bytes())
    table["size_bytes"] = segment_path(trail, seal.first).stat().st_size
    seal_path(trail, seal.first).write_bytes(canonical(table))
    with pytest.raises(AuditDamagedError, match="is not signed, and should be"):
        verify_trail(trail)


async def test_an_earlier_version_does_not_write_to_a_trail_without_rows(
    tmp_path: Path, mark: Path
) -> None:
    """It takes the first byte of a signed frame for a length that cannot be."""
    directory = tmp_path / "young"
    async with opened(directory, mark=mark):
        pass
    (first,) = records(directory)
    assert first.body["name"] == "audit-signing"
    (length,) = struct.unpack(">I", spool_path(directory).read_bytes()[:4])
    assert length > MAX_RECORD_BYTES
    # A start after it writes no second one.
    async with opened(directory, mark=mark) as log:
        assert log.anchor[0] == 1


async def test_a_start_of_the_version_without_the_event_is_followed_by_it(
    tmp_path: Path, mark: Path
) -> None:
    directory = tmp_path / "trail"
    await written(directory, 2)
    mark.write_text("each frame is signed\n")  # noqa: ASYNC240 - a test
    async with opened(directory, mark=mark) as log:
        assert log.anchor[0] == 3
    assert records(directory)[-1].body["name"] == "audit-signing"
