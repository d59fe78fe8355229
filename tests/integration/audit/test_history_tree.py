"""The tree over a trail: its files follow the records, and a start compares them with its head."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.base.segments import seals, segment_path, spool_path
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.tree.head import TreeHead, read_tree_head, start_leaf, what_changed
from hpcc.audit.tree.history import HistoryTree
from hpcc.audit.tree.merkle import LeafTree, is_consistent
from hpcc.audit.verify import verify_trail
from hpcc.ports import SignedTree, TreeMark
from hpcc_testkit.farm.audit_rows import KEY, SMALL, opened, row, tree_of, written

KEY_BYTES = HeadSigner("w1", KEY).public_key
GENESIS = "0" * 64


def head_of(said: SignedTree | None) -> TreeHead:
    assert said is not None
    return read_tree_head("w1", said.checkpoint, said.key)


async def test_the_head_is_that_of_the_records_over_restarts_and_seals(tmp_path: Path) -> None:
    trail, heads = tmp_path / "trail", list[TreeHead]()
    for start in range(0, 20, 4):
        async with opened(trail, limits=SMALL) as log:
            for number in range(start, start + 4):
                await log.append(row(number))
                heads.append(head_of(log.signed_tree(None)))
            last = log.signed_tree(heads[0].mark)
    assert len(list(seals(trail))) > 2
    whole = tree_of(trail)
    for number, head in enumerate(heads):
        assert (head.size, head.count, head.first) == (number + 2, number + 1, 0)
        assert head.root == whole.root(number + 2)
    assert last is not None
    assert last.key == KEY_BYTES
    assert what_changed(heads[0], head_of(last), last) == ""
    assert last.proof == tuple(whole.consistency(2, 21))


async def test_proofs_from_each_earlier_head_are_good(tmp_path: Path) -> None:
    """More than 256 leaves, so that the second file is used."""
    tree = HistoryTree(tmp_path, HeadSigner("w1", KEY))
    tree.begin(0, GENESIS)
    memory = LeafTree([start_leaf(0, GENESIS)])
    for number in range(1, 1100):
        leaf = record_leaf_of(number)
        memory.append(leaf)
        tree.append([leaf], GENESIS)
    for size in range(1, 1101):
        assert tree.root(size) == memory.root(size)
    for old in range(1, 1101, 7):
        said = tree.prove(TreeMark(old, memory.root(old)), 1.5)
        assert is_consistent(old, 1100, memory.root(old), memory.root(), said.proof)
    assert tree.size_bytes == (1100 + 4) * 32
    tree.flush()
    tree.seal(1.5)
    tree.close()
    again = HistoryTree(tmp_path, HeadSigner("w1", KEY))
    again.begin(1099, GENESIS)
    assert again.root() == memory.root()
    again.close()


def record_leaf_of(number: int) -> bytes:
    return start_leaf(number, GENESIS)


async def test_a_tree_begins_in_an_older_trail_with_the_chain_before_it(tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    await written(trail, 10)
    first = list(seals(trail))[-1].end
    for path in trail.glob("tree*"):
        path.unlink()
    for _ in range(2):
        async with opened(trail, limits=SMALL) as log:
            head = head_of(log.signed_tree(None))
        assert (head.first, head.count) == (first, 10)
        assert head.root == tree_of(trail, first).root()
    async with opened(trail, limits=SMALL) as log:
        for number in range(10, 20):
            await log.append(row(number))
        head = head_of(log.signed_tree(head.mark))
    assert (head.first, head.root) == (first, tree_of(trail, first).root())


async def test_an_earlier_version_in_between_does_not_move_the_beginning(tmp_path: Path) -> None:
    """It seals segments and knows of no tree. Else an honest worker is drained."""
    trail, aside = tmp_path / "trail", tmp_path / "aside"
    async with opened(trail) as log:
        for number in range(3):
            await log.append(row(number))
        before = log.signed_tree(None)
    assert not list(seals(trail))
    shutil.copytree(trail, aside)
    await written(trail, 9, start=3)
    assert list(seals(trail))
    for path in trail.glob("tree*"):
        path.unlink()
    for path in aside.glob("tree*"):
        shutil.copy(path, trail / path.name)
    async with opened(trail, limits=SMALL) as log:
        after = log.signed_tree(head_of(before).mark)
    assert after is not None
    assert (head_of(after).first, head_of(after).count) == (0, 12)
    assert what_changed(head_of(before), head_of(after), after) == ""


async def test_a_heartbeat_does_not_wait_for_a_seal_on_a_slow_disk(tmp_path: Path) -> None:
    """The leases of a worker end if its heartbeats wait for a disk."""
    is_syncing, may_go_on = threading.Event(), threading.Event()
    is_open = False

    def fault(step: str) -> None:
        if step == "tree-sync" and is_open:
            is_syncing.set()
            assert may_go_on.wait(30)

    async with opened(tmp_path / "trail", fault=fault) as log:
        is_open = True
        await log.append(row(0))
        sealing = asyncio.create_task(log.seal())
        try:
            assert await asyncio.to_thread(is_syncing.wait, 30)
            said = asyncio.get_running_loop().run_in_executor(None, log.signed_tree, None)
            head = head_of(await asyncio.wait_for(asyncio.shield(said), 10))
        finally:
            may_go_on.set()
        await sealing
        assert head.count == 1
        assert head_of(log.signed_tree(head.mark)).root == head.root


@pytest.mark.parametrize("what", ["flip", "cut", "remove", "older"])
async def test_files_of_the_tree_that_were_changed_are_made_anew(tmp_path: Path, what: str) -> None:
    trail = tmp_path / "trail"
    await written(trail, 6)
    old = (trail / "tree-0").read_bytes()
    await written(trail, 8, start=6)
    path = trail / "tree-0"
    data = bytearray(path.read_bytes())
    if what == "flip":
        data[40] ^= 1
        path.write_bytes(data)
    elif what == "cut":
        path.write_bytes(data[:70])
    elif what == "older":
        path.write_bytes(old)
    else:
        path.unlink()
    async with opened(trail, limits=SMALL) as log:
        assert head_of(log.signed_tree(None)).root == tree_of(trail).root()


async def test_a_start_misses_records_that_its_head_covers(tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    await written(trail, 10)
    last = list(seals(trail))[-1]
    for path in (segment_path(trail, last.first), spool_path(trail)):
        path.unlink()
    for path in trail.glob(f"sealed-{last.first:020d}*"):
        path.unlink()
    with pytest.raises(AuditDamagedError, match="the end is missing"):
        async with opened(trail, limits=SMALL):
            pass


async def test_hashes_that_are_lost_with_their_records_stop_the_start(tmp_path: Path) -> None:
    trail, limits = tmp_path / "trail", SpoolLimits(segment_bytes=6300, max_bytes=60_000)
    async with opened(trail, limits=limits) as log:
        log.hold_for(lambda: log.anchor[0])
        for number in range(40):
            await log.append(row(number))
            await log.retire()
        head = head_of(log.signed_tree(None))
    async with opened(trail, limits=limits) as log:
        assert head_of(log.signed_tree(None)).root == head.root
    (trail / "tree-0").unlink()
    with pytest.raises(AuditDamagedError, match="which retention removed"):
        async with opened(trail, limits=limits):
            pass


async def test_a_full_disk_keeps_leaves_until_there_is_room(tmp_path: Path) -> None:
    trail, other = tmp_path / "trail", tmp_path / "other"

    def fault(step: str) -> None:
        if step.startswith("tree-"):
            raise OSError(28, "No space left on device")

    async with opened(trail, limits=SMALL, fault=fault) as log:
        for number in range(12):
            await log.append(row(number))
        assert head_of(log.signed_tree(None)).count == 12
    assert not list(seals(trail))
    shutil.copytree(trail, other)
    async with opened(trail, limits=SMALL) as log:
        await log.append(row(12))
        assert head_of(log.signed_tree(None)).root == tree_of(trail).root()
    assert len(list(seals(trail))) == 1


async def test_files_that_are_cut_while_they_are_used_change_no_head(
    tmp_path: Path,
) -> None:
    trail, limits = tmp_path / "trail", SpoolLimits(segment_bytes=90_000, max_bytes=6_000_000)
    async with opened(trail, limits=limits) as log:
        for number in range(200):
            await log.append(row(number))
        os.truncate(trail / "tree-0", 40)
        for number in range(200, 300):
            await log.append(row(number))
        assert head_of(log.signed_tree(None)).root == tree_of(trail).root()
        assert log.anchor[0] == 300
    verify_trail(trail)
    async with opened(trail, limits=limits) as log:
        assert head_of(log.signed_tree(None)).root == tree_of(trail).root()


@pytest.mark.parametrize(
    "line", [b"first 00", b"first -1", b"chain 0", b"at nan", b"at inf", b"at 1e", b"more 1"]
)
def test_a_head_of_another_form_is_refused(tmp_path: Path, line: bytes) -> None:
    from hpcc.audit.tree.head import origin_of, sign_tree_head
    from hpcc.audit.tree.note import NoteKey, sign_note

    head = TreeHead(worker="w1", size=2, root=bytes(32), first=0, head=GENESIS, at=1.5)
    good = sign_tree_head(head, KEY_BYTES, KEY.sign)
    assert read_tree_head("w1", good, KEY_BYTES) == head
    name = line.split()[0].decode()
    lines = good.decode().partition("\n\n")[0].split("\n")
    changed = [line.decode() if x.startswith(f"{name} ") else x for x in lines]
    if changed == lines:
        changed.append(line.decode())
    text = "".join(f"{x}\n" for x in changed)
    note = sign_note(text, NoteKey(origin_of("w1"), KEY_BYTES), KEY.sign).encode()
    with pytest.raises(AuditDamagedError):
        read_tree_head("w1", note, KEY_BYTES)
    for other, key in (("w2", KEY_BYTES), ("w1", bytes(32)), ("w1", b"")):
        with pytest.raises(AuditDamagedError):
            read_tree_head(other, good, key)
