"""The lists of a compile's files stay as long as a row leads to them, and no longer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.core import Blob, InfrastructureError, InputFile, InputPart, TenantId
from hpcc.reapi.tree import InputTree, TreeWalk, build_tree
from hpcc.store.memory import MemoryBlobStore
from hpcc.worker.stores.retained import RetainedReader, sources_directory
from hpcc.worker.stores.source_list import read_sources
from hpcc.worker.stores.sources import KeptSources
from hpcc_testkit.farm.audit_rows import opened, row
from hpcc_testkit.services.idp_tokens import FixedClock

ACME = TenantId("acme")
HEADER = InputFile("include/deep/a.h", Blob.of(b"int a;\n").digest)
DAYS = 3 * 86_400.0


def tree_of(name: str, text: bytes) -> InputTree:
    return build_tree([HEADER, InputFile(f"src/{name}", Blob.of(text).digest)])


def parts_of(tree: InputTree) -> tuple[InputPart, ...]:
    walk = TreeWalk(tree.root)
    while wanted := walk.wanted:
        for digest in wanted:
            walk.feed(digest, tree.directories[digest])
    return walk.parts


class Kept:
    def __init__(self, base: Path, *, max_bytes: int = 1 << 20) -> None:
        self.clock, self.source = FixedClock(), MemoryBlobStore()
        self.store, self.trail = base / "store", base / "audit"
        self.sources = self.again(max_bytes)

    def again(self, max_bytes: int = 1 << 20) -> KeptSources:
        """Return what another start of the worker would have."""
        return KeptSources(self.store, self.trail, max_bytes=max_bytes, clock=self.clock)

    async def keep(self, *trees: InputTree) -> None:
        for tree in trees:
            for data in tree.directories.values():
                await self.source.put(Blob.of(data))
            await self.sources.keep(ACME, self.source, parts_of(tree))

    async def write(self, trees: Iterable[InputTree], *, retired: int = 0) -> None:
        """Write a segment with one row of each tree; remove the oldest segments."""
        limits = SpoolLimits(segment_bytes=1, max_bytes=600_000, keep_seconds=1e-6)
        async with opened(self.trail, limits=limits) as log:
            for number, tree in enumerate(trees):
                await log.append(row(number, tenant="acme", input_root_digest=str(tree.root)))
                await log.seal()
                if number + 1 == retired:
                    assert await log.retire() == retired

    def age(self) -> None:
        for file in sources_directory(self.store, ACME).glob("??/*"):
            os.utime(file, (self.clock.now() - DAYS,) * 2)

    @property
    def names(self) -> set[str]:
        return {file.name for file in sources_directory(self.store, ACME).glob("??/*")}


def hashes(*trees: InputTree) -> set[str]:
    return {digest.hash for tree in trees for digest in tree.directories}


OLD, NEW = tree_of("old.c", b"int old;\n"), tree_of("new.c", b"int new;\n")


async def test_all_directories_of_a_tree_are_kept_and_their_files_are_not(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keep(OLD)
    assert kept.names == hashes(OLD)
    found = read_sources(RetainedReader(kept.store, ACME), OLD.root)
    assert [f.path for f in found.files] == ["include/deep/a.h", "src/old.c"]
    assert found.gone == ()


async def test_what_a_row_leads_to_stays_when_other_rows_are_removed(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keep(OLD, NEW)
    await kept.write([OLD, NEW], retired=1)
    kept.age()
    after = kept.again()
    assert after.sweep() == len(hashes(OLD) - hashes(NEW)) > 0
    assert kept.names == hashes(NEW)
    assert after.sweep() == 0, "once for each time that rows were removed"


async def test_nothing_is_removed_while_no_row_was(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keep(OLD, NEW)
    await kept.write([NEW])
    kept.age()
    assert kept.again().sweep() == 0
    assert kept.names == hashes(OLD, NEW)


async def test_a_directory_of_the_last_day_stays_since_its_row_may_come(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keep(OLD, NEW)
    await kept.write([OLD, NEW], retired=1)
    assert kept.again().sweep() == 0
    # Even if the clock jumped: this process knows that it has just kept it.
    kept.age()
    assert kept.sources.sweep() == 0
    assert kept.names == hashes(OLD, NEW)


async def test_a_trail_that_was_changed_removes_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keep(OLD, NEW)
    await kept.write([OLD, NEW], retired=1)
    kept.age()
    segment = next(p for p in kept.trail.glob("*.hpcc") if b"acme" in p.read_bytes())
    segment.write_bytes(segment.read_bytes().replace(b"acme", b"evil"))
    assert kept.again().sweep() == 0
    assert kept.names == hashes(OLD, NEW)


async def test_a_full_store_is_said_once_and_removes_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path, max_bytes=4096 * len(OLD.directories))
    await kept.keep(OLD)
    with pytest.raises(InfrastructureError) as raised:
        await kept.keep(NEW)
    assert raised.value.reason == "sources-full"
    await kept.keep(NEW)
    assert kept.names == hashes(OLD)
    kept.clock.time += 3600.0
    with pytest.raises(InfrastructureError):
        await kept.keep(NEW)


async def test_a_file_that_a_power_cut_left_is_written_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keep(OLD)
    for file in sources_directory(kept.store, ACME).glob("??/*"):
        file.write_bytes(b"")
    kept.sources = kept.again()
    await kept.keep(OLD)
    assert read_sources(RetainedReader(kept.store, ACME), OLD.root).gone == ()


async def test_a_changed_directory_is_gone_and_what_is_below_it_unknown(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keep(OLD)
    place = sources_directory(kept.store, ACME) / OLD.root.hash[:2] / OLD.root.hash
    place.write_bytes(place.read_bytes()[::-1])
    found = read_sources(RetainedReader(kept.store, ACME), OLD.root)
    assert (found.files, found.gone) == ((), (OLD.root,))
