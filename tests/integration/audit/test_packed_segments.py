"""Sealed segments are packed in the background, and nothing that an auditor reads changes."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError, encode_record, signed_record
from hpcc.audit.base.frames import frame_of
from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.base.packed import MAGIC, frames_size, is_packed, open_segment, packed_bytes
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import Placed, seals, segment_path, spool_path, write_seal
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.base.trail import walk, walk_segment
from hpcc.audit.cursor import TrailCursor
from hpcc.audit.disk import least_free
from hpcc.audit.lookup.making import Remade, reindex
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.verify import verify_trail
from hpcc_testkit.farm.audit_rows import KEY, opened, row, tree_of

LIMITS = SpoolLimits(segment_bytes=100_000, max_bytes=8_000_000)
ROWS = 150


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("sealed-*.hpcc"))


def everything(directory: Path) -> list[tuple[int, int, bytes, bytes]]:
    found = [i for i in walk(directory) if isinstance(i, Placed)]
    return [(i.segment, i.place, i.record.data, i.record.signature) for i in found]


def bytes_of(directory: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in directory.glob(pattern))


def events(directory: Path) -> list[object]:
    return [r.body["name"] for r in TrailReader(directory).find(Query(kind="event", since=-1e9))]


async def sealed_trail(directory: Path, rows: int = ROWS) -> None:
    """Write a trail with sealed segments that are not packed."""
    async with opened(directory, limits=LIMITS) as log:
        for number in range(rows):
            await log.append(row(number))
        await log.seal()


async def pack(directory: Path) -> None:
    async with opened(directory, limits=LIMITS) as log:
        await log.pack_old()


async def test_a_packed_trail_has_the_same_records_places_and_tree(tmp_path: Path) -> None:
    await sealed_trail(tmp_path)
    before, root = everything(tmp_path), tree_of(tmp_path).root()
    plain = [path.read_bytes() for path in segments(tmp_path)]
    await pack(tmp_path)
    assert len(plain) > 1
    assert all(is_packed(path) for path in segments(tmp_path))
    assert sum(p.stat().st_size for p in segments(tmp_path)) < sum(map(len, plain)) // 3
    for path, frames in zip(segments(tmp_path), plain, strict=True):
        with open_segment(path) as file:
            assert file.read() == frames
        assert frames_size(path) == len(frames)
    after = everything(tmp_path)
    assert after[: len(before)] == before
    assert tree_of(tmp_path).root(len(before) + 1) == root
    verified = verify_trail(tmp_path)
    assert (verified.signed, verified.unproved) == (len(after), 0)
    assert verified.indexes == verified.segments
    assert {done.remade for done in reindex(tmp_path)} == {Remade.UNCHANGED}


async def test_queries_and_sinks_read_the_same_from_a_packed_trail(tmp_path: Path) -> None:
    await sealed_trail(tmp_path)
    for exhaustive in (False, True):
        reader = TrailReader(tmp_path, is_exhaustive=exhaustive)
        plain = [r.data for r in reader.find(Query(since=-1e9, limit=1 << 30))]
        await pack(tmp_path)
        reader = TrailReader(tmp_path, is_exhaustive=exhaustive)
        assert [r.data for r in reader.find(Query(since=-1e9, limit=1 << 30))] == plain
        assert len(plain) == ROWS
        assert reader.row("row_id-77").body["row_id"] == "row_id-77"
    cursor, copied = TrailCursor(tmp_path), 0
    while batch := cursor.read(copied, limit=11, max_bytes=1 << 20):
        copied += len(batch)
    assert copied == len(everything(tmp_path))


async def test_the_day_of_the_change_is_one_record(tmp_path: Path) -> None:
    await sealed_trail(tmp_path)
    assert "audit-packing" not in events(tmp_path)
    await pack(tmp_path)
    await sealed_trail(tmp_path)
    await pack(tmp_path)
    assert events(tmp_path).count("audit-packing") == 1
    assert all(is_packed(path) for path in segments(tmp_path) if frames_size(path) > 65536)
    verify_trail(tmp_path)


async def test_a_packed_trail_counts_and_retires_what_it_takes_of_the_disk(tmp_path: Path) -> None:
    await sealed_trail(tmp_path)
    async with opened(tmp_path, limits=LIMITS) as log:
        await log.pack_old()
        files = bytes_of(tmp_path, "sealed-*")
        assert files < log.size[0] < files + 40_000
    old = SpoolLimits(segment_bytes=100_000, max_bytes=8_000_000, keep_seconds=1e-9)
    async with opened(tmp_path, limits=old) as log:
        await log.retire()
        assert segments(tmp_path) == []
    assert verify_trail(tmp_path).first >= ROWS


async def test_a_trail_of_an_earlier_version_is_packed_and_its_rows_stay_unsigned(
    tmp_path: Path,
) -> None:
    head, frames = GENESIS, b""
    for number in range(80):
        record = encode_record(row(number), sequence=number, previous=head, worker="w1")
        head, frames = record.hash, frames + frame_of(record)
    spool_path(tmp_path).write_bytes(frames)
    await pack(tmp_path)  # the first start seals them
    await pack(tmp_path)
    assert is_packed(segment_path(tmp_path, 0))
    with open_segment(segment_path(tmp_path, 0)) as file:
        assert file.read() == frames
    verified = verify_trail(tmp_path)
    assert (verified.unsigned, verified.unproved) == (80, 0)
    assert TrailReader(tmp_path).row("row_id-77").signature == b""


async def test_a_full_trail_is_packed_after_the_event_and_has_room_again(tmp_path: Path) -> None:
    await sealed_trail(tmp_path)
    size = bytes_of(tmp_path, "*")
    full = SpoolLimits(segment_bytes=100_000, max_bytes=size)
    async with opened(tmp_path, limits=full) as log:
        await log.pack_old()
        log.require_room()
        await log.append(row(2000))
    assert events(tmp_path).count("audit-packing") == 1
    verify_trail(tmp_path)


@pytest.mark.parametrize("step", ["open", "block", "sync", "rename", "replace", "directory-sync"])
async def test_a_disk_that_fails_while_a_segment_is_packed_changes_nothing(
    tmp_path: Path, step: str
) -> None:
    await sealed_trail(tmp_path)
    before = everything(tmp_path)

    def fault(at: str) -> None:
        if at == f"pack-{step}":
            raise OSError(errno.ENOSPC, "no space")

    async with opened(tmp_path, limits=LIMITS, fault=fault) as log:
        await log.pack_old()
        await log.append(row(1000))
    assert everything(tmp_path)[: len(before)] == before
    assert bytes_of(tmp_path, ".pack-*") == 0
    verify_trail(tmp_path)
    await pack(tmp_path)
    assert all(is_packed(path) for path in segments(tmp_path))


async def test_packing_leaves_the_room_of_a_disk_that_rows_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed_trail(tmp_path)
    before, spare = everything(tmp_path), least_free(LIMITS) // 2
    monkeypatch.setattr("hpcc.audit.packing.free_bytes", lambda _: spare + 100)
    await pack(tmp_path)
    assert not any(is_packed(path) for path in segments(tmp_path))
    assert bytes_of(tmp_path, ".pack-*") == 0
    assert everything(tmp_path)[: len(before)] == before
    monkeypatch.undo()
    await pack(tmp_path)
    assert all(is_packed(path) for path in segments(tmp_path))


_CRASHING = """
import asyncio, os, sys
from pathlib import Path
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc_testkit.farm.audit_rows import opened, row
step, directory = sys.argv[1], Path(sys.argv[2])
def fault(at):
    if at == step:
        os.kill(os.getpid(), 9)
async def main():
    limits = SpoolLimits(segment_bytes=100_000, max_bytes=8_000_000)
    async with opened(directory, limits=limits, fault=fault) as log:
        await log.pack_old()
asyncio.run(main())
"""


async def test_a_worker_killed_at_any_step_of_packing_leaves_a_trail_that_verifies(
    tmp_path: Path,
) -> None:
    steps = ("open", "write", "block", "sync", "rename", "replace", "directory-sync")
    await sealed_trail(tmp_path / "trail")
    before = everything(tmp_path / "trail")
    for step in steps:
        copy = tmp_path / step
        shutil.copytree(tmp_path / "trail", copy)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CRASHING, f"pack-{step}", str(copy)
        )
        assert await process.wait() == -9, f"pack-{step} was never reached"
        assert everything(copy)[: len(before)] == before  # before any repair
        verify_trail(copy)
        await pack(copy)
        assert not list(copy.glob(".pack-*"))
        assert all(is_packed(path) for path in segments(copy))
        assert everything(copy)[: len(before)] == before
        verify_trail(copy)


async def test_a_changed_byte_of_a_packed_segment_is_found(tmp_path: Path) -> None:
    await sealed_trail(tmp_path, 80)
    await pack(tmp_path)
    path, before, changed = segments(tmp_path)[0], everything(tmp_path), random.Random(11)
    data = path.read_bytes()
    for _ in range(60):
        at = changed.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << changed.randrange(8)]) + data[at + 1 :])
        try:
            verify_trail(tmp_path)
        except AuditDamagedError:
            continue
        assert everything(tmp_path) == before  # a bit that zstd does not read
    for end in (len(MAGIC), len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(AuditDamagedError):
            verify_trail(tmp_path)
        with pytest.raises(AuditDamagedError):
            await pack(tmp_path)  # a start


async def test_a_packed_segment_of_another_trail_or_as_the_open_one_is_refused(
    tmp_path: Path,
) -> None:
    await sealed_trail(tmp_path / "a", 80)
    async with opened(tmp_path / "b", limits=LIMITS) as log:
        for number in range(80):
            await log.append(row(number, tenant="tenant-x"))
        await log.seal()
    await pack(tmp_path / "a")
    await pack(tmp_path / "b")
    shutil.copy(segment_path(tmp_path / "b", 0), segment_path(tmp_path / "a", 0))
    with pytest.raises(AuditDamagedError):
        verify_trail(tmp_path / "a")
    with pytest.raises(AuditDamagedError):
        TrailReader(tmp_path / "a").row("row_id-7")
    last = [seal.first for seal in seals(tmp_path / "b")][-1]
    os.replace(segment_path(tmp_path / "b", last), tmp_path / "b" / "spool.hpcc")
    with pytest.raises(AuditDamagedError):
        verify_trail(tmp_path / "b")


@pytest.mark.parametrize("signature", [b"", bytes(64)])
@pytest.mark.parametrize("packs", [False, True])
async def test_no_row_is_shown_with_a_signature_that_its_worker_did_not_make(
    tmp_path: Path, signature: bytes, packs: bool
) -> None:
    async with opened(tmp_path, limits=LIMITS, mark=tmp_path / "mark") as log:
        for number in range(60):
            await log.append(row(number))
        await log.seal()
    first = next(seals(tmp_path))
    TrailReader(tmp_path).row("row_id-57")
    records = [i.record for i in walk_segment(tmp_path, first)]
    # The last one, so that all others keep their places in the frames.
    changed = [*records[:-1], signed_record(records[-1], signature)]
    parts = packed_bytes(changed) if packs else map(frame_of, changed)
    segment_path(tmp_path, 0).write_bytes(b"".join(parts))
    with pytest.raises(AuditDamagedError, match="sign"):
        TrailReader(tmp_path).row(str(records[-1].body["row_id"]))
    # The version before signed only the head of a seal, and the event tells from where on.
    old = replace(
        first, size_bytes=frames_size(segment_path(tmp_path, 0)), signed_from=None, index=None,
        signed=HeadSigner("w1", KEY).sign(first.end, first.signed.head, 1.0),
    )  # fmt: skip
    write_seal(tmp_path, old, lambda _: None)
    with pytest.raises(AuditDamagedError, match="sign"):
        TrailReader(tmp_path).row(str(records[-1].body["row_id"]))
