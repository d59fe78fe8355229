"""The proofs of an evidence file lead to the head of the worker's own tree."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError
from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.base.segments import Seal, sign_seal, write_seal
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.roots import check_roots
from hpcc.audit.tree.head import TreeHead, read_tree_head, sign_tree_head
from hpcc.core import CallerError, NotFoundError
from hpcc.evidence.bundle import seal_evidence
from hpcc.evidence.forms.container import pack_files
from hpcc.evidence.forms.errors import EvidenceDamagedError
from hpcc.evidence.heads import HeldCheckpoint, parse_held
from hpcc.evidence.making import read_subject
from hpcc.evidence.verify import VerifiedEvidence, verify_evidence
from hpcc.ports import SignedHead, SignedTree
from hpcc_testkit.evidence.made import (
    MAKER,
    MadeEvidence,
    guest_row,
    library,
    made_evidence,
    pinned,
    raw,
)
from hpcc_testkit.farm.audit_rows import KEY, SMALL, opened, row, tree_of

OBJECTS = {f"object-with-a-long-name-{n}.o": b"object %d\n" % n for n in range(4)}
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CHECKPOINT = "worker.w1.checkpoint"


class Farm:
    """A library, its worker's trail in segments of three rows, and what a scheduler holds."""

    def __init__(self, base: Path) -> None:
        self.library, self.trail = base / "libm.a", base / "trail"
        self.library.write_bytes(library(OBJECTS))

    async def write(self, *, more: int = 0, limits: SpoolLimits | None = SMALL) -> SignedTree:
        """Write the rows of the objects, and then others; return the head behind all."""
        async with opened(self.trail, limits=limits) as log:
            for number, (name, data) in enumerate(OBJECTS.items()):
                await log.append(row(number, **guest_row(number, {name: data})))
            for number in range(more):
                await log.append(row(100 + number))
            return log.signed_tree(None)

    def attest(self, held: Mapping[str, HeldCheckpoint] | None = None) -> MadeEvidence:
        return made_evidence(self.library, [self.trail], held=held)

    def verify(self, made: MadeEvidence) -> VerifiedEvidence:
        return verify_evidence(made.data, read_subject(self.library), pinned())


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def held(said: SignedTree) -> dict[str, HeldCheckpoint]:
    return {"w1": HeldCheckpoint(said.checkpoint)}


async def test_proofs_lead_to_the_head_that_a_scheduler_holds(farm: Farm) -> None:
    said = await farm.write(more=2)
    made = farm.attest(held(said))
    assert made.files[CHECKPOINT] == said.checkpoint
    found = farm.verify(made)
    assert found.makers_heads == ()
    assert found.coverage.is_proved
    assert [row.index for row in made.evidence.rows] == [1, 2, 3, 4]


async def test_sealed_rows_have_the_head_that_the_worker_signed_at_its_seal(farm: Farm) -> None:
    await farm.write(more=4)
    made = farm.attest()
    assert made.files[CHECKPOINT] == (farm.trail / "tree.head").read_bytes()
    assert farm.verify(made).makers_heads == ()


@pytest.mark.parametrize("count", [1 << 40, (1 << 62) - 1])
def test_a_forged_seal_of_countless_removed_records_takes_no_memory(farm: Farm, count: int) -> None:
    countless(farm.trail, count)
    (farm.trail / "tree-0").write_bytes(bytes(64))
    with pytest.raises(NotFoundError, match=r"tree-\d lacks hashes of records"):
        farm.attest()


def countless(trail: Path, count: int) -> None:
    """Write a trail whose seal and head say that retention removed so many records."""
    trail.mkdir()
    signed = SignedHead(worker="", count=count, head="a" * 64, at=1.0, key=b"", signature=b"")
    forged = Seal(first=0, previous=GENESIS, size_bytes=5, signed=signed, signed_from=0)
    signer = HeadSigner("w1", KEY)
    write_seal(trail, sign_seal(signer, forged), lambda _: None)
    head = TreeHead(worker="w1", size=count + 1, root=bytes(32), first=0, head="a" * 64, at=1.0)
    checkpoint = sign_tree_head(head, signer.public_key, signer.sign_message)
    (trail / "tree.head").write_bytes(checkpoint)


def test_sparse_files_of_hashes_take_no_memory(farm: Farm) -> None:
    """Of two tebibytes a few kilobytes are read."""
    countless(farm.trail, 1 << 35)
    for level in range(5):
        (farm.trail / f"tree-{level}").touch()
        os.truncate(farm.trail / f"tree-{level}", (64 << 35) >> (8 * level))
    tracemalloc.start()
    try:
        with pytest.raises(AuditDamagedError, match="the trail was changed"):
            farm.attest()
        with pytest.raises(AuditDamagedError, match="not those of the head"):
            check_roots(farm.trail)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


async def test_without_a_later_head_the_maker_signs_the_same_tree(farm: Farm) -> None:
    said = await farm.write()
    made = farm.attest()
    assert farm.verify(made).makers_heads == ("w1",)
    own = read_tree_head("w1", said.checkpoint, raw(KEY))
    of_maker = read_tree_head("w1", made.files[CHECKPOINT], raw(MAKER), "hpcc-evidence")
    assert replace(own, at=0) == replace(of_maker, at=0)
    assert own.root == tree_of(farm.trail).root()


async def test_leaves_of_removed_records_come_from_the_workers_file(farm: Farm) -> None:
    async with opened(farm.trail, limits=SMALL) as log:
        for number in range(8):
            await log.append(row(100 + number))
    said = await farm.write()
    before = farm.attest(held(said))
    first = min(farm.trail.glob("sealed-*.hpcc"))
    first.unlink()
    assert farm.attest(held(said)).data == before.data
    assert farm.attest().evidence.rows == before.evidence.rows
    older = held(said)
    await farm.write(more=8)
    for path in sorted(farm.trail.glob("sealed-*.hpcc"))[:-1]:
        path.unlink()
    # A head that is older than the removal: the kept hashes lead to it.
    farm.attest(older)
    with pytest.raises(AuditDamagedError, match="the trail was changed"):
        farm.attest({"w1": HeldCheckpoint(forged(said))})
    (farm.trail / "tree-0").write_bytes((farm.trail / "tree-0").read_bytes()[:40])
    with pytest.raises(NotFoundError, match="tree-0 lacks hashes of records"):
        farm.attest()


def forged(said: SignedTree) -> bytes:
    """Return the same head with another root, signed by the worker."""
    signer = HeadSigner("w1", KEY)
    head = replace(read_tree_head("w1", said.checkpoint, raw(KEY)), root=bytes(32))
    return sign_tree_head(head, signer.public_key, signer.sign_message)


async def test_forged_leaves_of_removed_records_are_found(farm: Farm) -> None:
    await farm.write(more=6)
    min(farm.trail.glob("sealed-*.hpcc")).unlink()
    leaves = bytearray((farm.trail / "tree-0").read_bytes())
    leaves[40] ^= 1
    (farm.trail / "tree-0").write_bytes(leaves)
    with pytest.raises(AuditDamagedError, match="the trail was changed"):
        farm.attest()


async def test_a_trail_that_lost_what_a_scheduler_holds_attests_nothing(farm: Farm) -> None:
    said = await farm.write(more=1, limits=None)
    spool = farm.trail / "spool.hpcc"
    data = spool.read_bytes()
    last = data.rindex(b'{"body"') - 4
    spool.write_bytes(data[:last])
    with pytest.raises(AuditDamagedError, match="the end is missing: the scheduler's head"):
        farm.attest(held(said))


async def test_another_history_than_the_held_one_attests_nothing(
    farm: Farm, tmp_path: Path
) -> None:
    async with opened(tmp_path / "other") as log:
        for number in range(3):
            await log.append(row(50 + number))
        other = log.signed_tree(None)
    await farm.write()
    with pytest.raises(AuditDamagedError, match="the records are not those of the scheduler's"):
        farm.attest(held(other))


async def test_rows_that_are_older_than_the_tree_do_not_count(farm: Farm) -> None:
    """A worker whose tree began behind them: no head can ever have them."""
    await farm.write(more=4)
    for path in farm.trail.glob("tree*"):
        path.unlink()
    async with opened(farm.trail, limits=SMALL) as log:
        await log.append(row(300))
        said = log.signed_tree(None)
    assert read_tree_head("w1", said.checkpoint, raw(KEY)).first > 4
    for heads in ({}, held(said)):
        made = farm.attest(heads)
        assert made.evidence.rows == ()
        assert not made.evidence.coverage().is_proved


async def test_a_head_that_neither_worker_nor_maker_signed_is_refused(farm: Farm) -> None:
    said = await farm.write()
    made = farm.attest(held(said))
    head = read_tree_head("w1", said.checkpoint, raw(KEY))
    for checkpoint in (
        sign_tree_head(head, raw(OTHER), OTHER.sign),
        sign_tree_head(head, raw(OTHER), OTHER.sign, "hpcc-evidence"),
        sign_tree_head(head, raw(KEY), OTHER.sign),
        sign_tree_head(replace(head, worker="w2"), raw(KEY), KEY.sign),
        said.checkpoint + said.checkpoint.splitlines(keepends=True)[-1],
    ):
        tree = replace(made.evidence.trees[0], checkpoint=checkpoint)
        forged = replace(made.evidence, trees=(tree,))
        data = pack_files(seal_evidence(forged, MAKER.sign))
        with pytest.raises(EvidenceDamagedError, match="the checkpoint of worker w1"):
            verify_evidence(data, read_subject(farm.library), pinned())


async def test_what_a_scheduler_prints_is_parsed_or_refused(farm: Farm) -> None:
    said = await farm.write()
    line = json.dumps({"worker": "w1", "key": "00", "checkpoint": said.checkpoint.decode()})
    assert parse_held(line.encode() + b"\n", "heads") == held(said)
    with pytest.raises(CallerError, match="two heads of one worker"):
        parse_held(f"{line}\n{line}\n".encode(), "heads")
    for wrong in (b"w1: 4 records\n", b"[]\n", b'{"worker": "w1"}\n', b"\xff\n", b"[" * 99_999):
        with pytest.raises(CallerError, match="heads, line 1: not what"):
            parse_held(wrong, "heads")
    changed = f'{line}\n{{"worker": "w1", "why": "it has 2 records, and had 4"}}\n'
    with pytest.raises(AuditDamagedError, match="it has 2 records, and had 4"):
        farm.attest(parse_held(changed.encode(), "heads"))
