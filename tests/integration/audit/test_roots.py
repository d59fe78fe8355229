"""`verify --roots` compares all records with the signed root, packed or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import AuditDamagedError, encode_record, signed_record
from hpcc.audit.base.frames import frame_of
from hpcc.audit.base.packed import packed_bytes
from hpcc.audit.base.segments import seal_path, seals, segment_path, spool_path
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.base.trail import walk_segment
from hpcc.audit.roots import check_roots
from hpcc.cli.main import main
from hpcc.core import NotFoundError
from hpcc_testkit.farm.audit_rows import opened, row, tree_of

LIMITS = SpoolLimits(segment_bytes=100_000, max_bytes=8_000_000)


async def trail(directory: Path, *, packs: bool) -> None:
    async with opened(directory, limits=LIMITS) as log:
        for number in range(150):
            await log.append(row(number))
        await log.seal()
        if packs:
            await log.pack_old()
        await log.append(row(1000))


@pytest.mark.parametrize("packs", [False, True])
async def test_the_root_is_that_of_all_sealed_records(tmp_path: Path, packs: bool) -> None:
    await trail(tmp_path, packs=packs)
    roots = check_roots(tmp_path)
    assert (roots.leaves, roots.first, roots.removed) == (151, 0, 0)
    assert roots.root == tree_of(tmp_path).root(151).hex()


@pytest.mark.parametrize("packs", [False, True])
async def test_a_changed_cut_or_missing_record_is_found(tmp_path: Path, packs: bool) -> None:
    await trail(tmp_path, packs=packs)
    path = segment_path(tmp_path, 0)
    data = path.read_bytes()
    # A signature of the first segment: no hash of the chain covers it.
    at = len(data) - 10
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(AuditDamagedError):
        check_roots(tmp_path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AuditDamagedError):
        check_roots(tmp_path)
    path.write_bytes(data)
    check_roots(tmp_path)
    (tmp_path / "tree.head").unlink()
    with pytest.raises(AuditDamagedError, match="missing"):
        check_roots(tmp_path)


@pytest.mark.parametrize("packs", [False, True])
async def test_a_record_behind_the_last_sealed_one_is_found(tmp_path: Path, packs: bool) -> None:
    await trail(tmp_path, packs=packs)
    seal = list(seals(tmp_path))[-1]
    records = [item.record for item in walk_segment(tmp_path, seal)]
    forged = encode_record(row(666), sequence=seal.end, previous=records[-1].hash, worker="w1")
    records.append(signed_record(forged, bytes(64)))
    parts = packed_bytes(records) if packs else map(frame_of, records)
    segment_path(tmp_path, seal.first).write_bytes(b"".join(parts))
    with pytest.raises(AuditDamagedError, match="another size"):
        check_roots(tmp_path)


async def test_a_crash_between_the_head_and_its_seal_leaves_a_segment_that_is_compared(
    tmp_path: Path,
) -> None:
    await trail(tmp_path, packs=True)
    async with opened(tmp_path, limits=LIMITS) as log:
        await log.append(row(1001))
        await log.seal()
    last = list(seals(tmp_path))[-1]
    seal_path(tmp_path, last.first).unlink()
    spool_path(tmp_path).unlink()
    assert check_roots(tmp_path).leaves == last.end + 1
    segment_path(tmp_path, last.first).unlink()
    with pytest.raises(AuditDamagedError, match="not those of the head"):
        check_roots(tmp_path)


async def test_removed_records_count_by_their_kept_hashes(tmp_path: Path) -> None:
    await trail(tmp_path, packs=True)
    whole = check_roots(tmp_path)
    segment_path(tmp_path, 0).unlink()
    roots = check_roots(tmp_path)
    assert roots.root == whole.root
    assert 0 < roots.removed < 150
    hashes = (tmp_path / "tree-0").read_bytes()
    (tmp_path / "tree-0").write_bytes(hashes[:40] + b"\xff" + hashes[41:])
    with pytest.raises(AuditDamagedError):
        check_roots(tmp_path)


async def test_only_the_first_segments_may_be_missing(tmp_path: Path) -> None:
    await trail(tmp_path, packs=False)
    found = list(seals(tmp_path))
    segment_path(tmp_path, found[1].first).unlink()
    with pytest.raises(AuditDamagedError, match="is missing, and earlier ones are not"):
        check_roots(tmp_path)
    segment_path(tmp_path, 0).unlink()
    assert check_roots(tmp_path).removed == found[1].end
    (tmp_path / "tree-0").unlink()
    with pytest.raises(NotFoundError, match="copy the tree-… files"):
        check_roots(tmp_path)


@pytest.mark.parametrize("packs", [False, True])
async def test_sealed_records_behind_an_older_head_are_checked_one_by_one(
    tmp_path: Path, packs: bool
) -> None:
    """A copy is made while a worker goes on: its head may be older than its last segments."""
    await trail(tmp_path, packs=False)
    head, count = (tmp_path / "tree.head").read_bytes(), list(seals(tmp_path))[-1].end
    async with opened(tmp_path, limits=LIMITS) as log:
        for number in range(90):
            await log.append(row(2000 + number))
        await log.seal()
        if packs:
            await log.pack_old()
    (tmp_path / "tree.head").write_bytes(head)
    found, last = check_roots(tmp_path), list(seals(tmp_path))[-1]
    assert (found.leaves, found.behind) == (count + 1, last.end - count)
    path = segment_path(tmp_path, last.first)
    records = [item.record for item in walk_segment(tmp_path, last)]
    # The chain does not cover a signature.
    records[1] = signed_record(replace(records[1], signature=b""), records[0].signature)
    path.write_bytes(b"".join(packed_bytes(records) if packs else map(frame_of, records)))
    with pytest.raises(AuditDamagedError, match=f"record {last.first + 1} has a wrong signature"):
        check_roots(tmp_path)
    path.unlink()
    with pytest.raises(AuditDamagedError, match=r"copy tree\.head again"):
        check_roots(tmp_path)


async def test_without_a_seal_there_is_nothing_to_compare(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=LIMITS) as log:
        await log.append(row())
    assert spool_path(tmp_path).exists()
    with pytest.raises(NotFoundError, match="sealed"):
        check_roots(tmp_path)


async def test_the_command_names_the_root_and_what_it_did_not_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await trail(tmp_path, packs=True)
    command = ["audit", "verify", "--roots", "--directory", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"151 leaves have root {check_roots(tmp_path).root}" in said
    assert "not checked: the signature of each record" in said
    assert main([*command, "--anchors", str(tmp_path / "anchors")]) == 2
    path = segment_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-1])
    assert main(command) == 1
    assert "NOT intact" in capsys.readouterr().err
