"""Nobody without the worker's key puts a record into a trail, and an older trail goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import (
    AuditDamagedError,
    Record,
    canonical,
    decode_record,
    encode_record,
)
from hpcc.audit.base.frames import frame_of, read_frames, signed_message
from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import Placed, seal_path, seals, segment_path, spool_path
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.base.trail import walk
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.tail import ForeignTailError
from hpcc.audit.verify import verify_trail
from hpcc.cli.main import main
from hpcc_testkit.farm.audit_rows import KEY, SMALL, opened, row, written

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
    assert (verified.signed, verified.unsigned) == (10, 0)


async def test_unsigned_tail_is_not_adopted(trail: Path, mark: Path) -> None:
    append(trail, next_record(trail))
    for known in (mark, None):
        assert "record 10 at byte" in await refuses(trail, known)
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
        assert "record 10 has a wrong signature" in err


async def test_a_signature_of_another_record_is_not_good_for_this_one(
    trail: Path, mark: Path
) -> None:
    append(trail, replace(next_record(trail), signature=records(trail)[-1].signature))
    assert "record 10" in await refuses(trail, mark)


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
    """Their heads stay signed when the rest is taken away."""
    for seal in list(seals(trail)):
        path = seal_path(trail, seal.first)
        table = json.loads(path.read_bytes())
        table.pop("index")
        path.write_bytes(canonical({**table, "format": 1}))
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
    assert (seal.end, seal.is_signing) == (5, True)
    assert mark.is_file()  # noqa: ASYNC240 - a test
    verified = verify_trail(directory)
    assert (verified.unsigned, verified.signed, verified.count) == (5, 1, 6)
    where = ["--directory", str(directory)]
    assert main(["audit", "verify", *where]) == 0
    out = capsys.readouterr().out
    assert "1 records have their writer's signature" in out
    assert "5 unsigned rows (format 1), of an earlier version" in out
    assert main(["audit", "show", "row_id-2", *where]) == 0
    assert "signature:            unsigned row (format 1)" in capsys.readouterr().out
    assert main(["audit", "show", "abab", *where]) == 0
    assert "unsigned" not in capsys.readouterr().out
    async with opened(directory, mark=mark) as log:
        await log.append(row(6))
    assert verify_trail(directory).count == 7


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
    assert verify_trail(trail).count == 11


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


async def test_a_trail_without_its_signatures_is_told_apart_where_no_head_covers_it(
    trail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seals do not sign the size of a segment, so every signature can be taken away."""
    forged = next_record(trail, principal="mallory")
    parts = [(segment_path(trail, s.first), s) for s in seals(trail)]
    for path, seal in [*parts, (spool_path(trail), None)]:
        with path.open("rb") as file:
            frames = [frame_of(decode_record(frame.data)) for frame in read_frames(file)]
        path.write_bytes(b"".join(frames))
        if seal is not None:
            table = json.loads(seal_path(trail, seal.first).read_bytes())
            table |= {"format": 1, "size_bytes": path.stat().st_size}
            del table["index"]
            seal_path(trail, seal.first).write_bytes(canonical(table))
            path.with_suffix(".idx").unlink()
    (trail / "signer").unlink()
    append(trail, forged)
    where = ["--directory", str(trail)]
    for command in (["list"], ["query", "--principal", "mallory"], ["export"], ["verify"]):
        main(["audit", *command, *where])
        assert "records have no signature, and no seal or anchor covers" in capsys.readouterr().err
    main(["audit", "query", "--principal", "principal-0", *where])
    assert not capsys.readouterr().err
