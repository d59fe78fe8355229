"""Rotation seals segments, a start reads only one of them, and a crash at any step is repaired."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import row_of
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import spool_path
from hpcc.audit.base.spool_limits import SpoolFullError, SpoolLimits
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.tree.head import read_tree_head
from hpcc.audit.verify import verify_trail
from hpcc.core import CallerError, InfrastructureError
from hpcc.ports import SecurityEvent
from hpcc_testkit.farm.audit_rows import SMALL, opened, row, tree_of, written


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("sealed-*.hpcc"))


def lose_index(directory: Path) -> None:
    for file in directory.glob("sealed-*.idx"):
        file.unlink()


def ids(directory: Path) -> list[str]:
    index = TrailReader(directory)
    return [row_of(r).row_id for r in index.find(Query(limit=1000), oldest_first=True)]


async def test_a_segment_is_sealed_when_it_has_grown_and_the_chain_goes_on(tmp_path: Path) -> None:
    count, head = await written(tmp_path, 30)
    assert len(segments(tmp_path)) > 4
    assert all(s.with_suffix(".seal").is_file() for s in segments(tmp_path))
    verified = verify_trail(tmp_path)
    assert (verified.count, verified.head) == (count, head) == (30, head)
    assert ids(tmp_path) == [f"row_id-{i}" for i in range(30)]


async def test_a_start_reads_the_open_segment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path, 30)
    every = segments(tmp_path)
    opens: list[Path] = []
    real = Path.open

    def spy(self: Path, *args: object, **kwargs: object) -> object:
        opens.append(self)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", spy)
    async with opened(tmp_path, limits=SMALL) as log:
        assert log.anchor[0] == 30
    assert len(every) > 4
    assert set(opens) & set(every) == set()


async def test_a_trail_of_one_file_from_an_older_version_goes_on(tmp_path: Path) -> None:
    await written(tmp_path, 6, limits=SpoolLimits())
    assert segments(tmp_path) == []
    (tmp_path / "lock").unlink()
    await written(tmp_path, 4, start=6)
    assert len(segments(tmp_path)) == 1
    assert ids(tmp_path) == [f"row_id-{i}" for i in range(10)]


async def test_without_indexes_all_segments_are_read_and_retention_removes_both(
    tmp_path: Path,
) -> None:
    await written(tmp_path, 33)
    lose_index(tmp_path)
    assert len(ids(tmp_path)) == 33
    await written(tmp_path, 0)
    limits = SpoolLimits(segment_bytes=6000, max_bytes=600_000, keep_seconds=1e-6)
    async with opened(tmp_path, limits=limits) as log:
        assert await log.retire() > 0
    left = ids(tmp_path)
    assert 0 < len(left) < 10
    names = {p.stem for p in segments(tmp_path)}
    assert {p.stem for p in tmp_path.glob("sealed-*.idx*")} <= names  # noqa: ASYNC240 - a test
    lose_index(tmp_path)
    assert ids(tmp_path) == left


async def has_whole_tree(directory: Path) -> None:
    """Check that the tree has each record, and that a start does not have to make it anew."""
    async with opened(directory, limits=SMALL) as log:
        said = log.signed_tree(None)
    assert said is not None
    head = read_tree_head("w1", said.checkpoint, said.key)
    assert head.root == tree_of(directory).root()


STEPS = (
    "open", "open-directory-sync", "write", "sync", "segment-rename", "segment-directory-sync",
    "index-open", "index-write", "index-sync", "index-rename", "seal-open", "seal-write", "seal-sync", "seal-rename", "seal-directory-sync",
    "tree-flush", "tree-open", "tree-write", "tree-sync", "tree-rename", "tree-directory-sync",
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
async def test_a_disk_that_fails_at_any_step_loses_no_row_that_was_promised(
    tmp_path: Path, step: str
) -> None:
    hits = 0

    def fault(at: str) -> None:
        nonlocal hits
        if at == step and is_bad:
            hits += 1
            raise OSError(errno.ENOSPC, "no space")

    promised: list[str] = []
    is_bad = False
    async with opened(tmp_path, limits=SMALL, fault=fault) as log:
        for number in range(24):
            is_bad = number in range(4, 16)
            try:
                await log.append(row(number))
            except InfrastructureError:
                continue
            promised.append(f"row_id-{number}")
        is_bad = False
    assert hits > 0
    assert ids(tmp_path) == promised
    assert len(promised) >= 12
    verify_trail(tmp_path)
    await written(tmp_path, 5, start=100)
    assert len(ids(tmp_path)) == len(promised) + 5
    verify_trail(tmp_path)
    await has_whole_tree(tmp_path)


_CRASHING = """
import asyncio, os, sys
from pathlib import Path
from hpcc_testkit.farm.audit_rows import SMALL, opened, row
step, directory, sync = sys.argv[1], Path(sys.argv[2]), sys.stdout
armed = False
def fault(at):
    if armed and at == step:
        os._exit(7)
async def main():
    global armed
    async with opened(directory, limits=SMALL, fault=fault) as log:
        for number in range(40):
            armed = number > 6
            await log.append(row(number))
            print(number, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("step", STEPS)
async def test_a_writer_killed_at_any_step_leaves_a_trail_that_goes_on(
    tmp_path: Path, step: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CRASHING, step, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 7, "the step was never reached"
    promised = [f"row_id-{n}" for n in out.decode().split()]
    before = ids(tmp_path)  # a reader sees what is there, before any repair
    assert before[: len(promised)] == promised
    await written(tmp_path, 5, start=100)
    assert ids(tmp_path)[: len(promised)] == promised
    assert len(ids(tmp_path)) in {len(promised) + 5, len(promised) + 6}
    verify_trail(tmp_path)
    await has_whole_tree(tmp_path)


async def test_a_full_trail_refuses_new_work_then_rows_and_recovers(tmp_path: Path) -> None:
    limits = SpoolLimits(segment_bytes=6000, max_bytes=40_000)
    acknowledged = 0
    async with opened(tmp_path, limits=limits) as log:
        log.hold_for(lambda: acknowledged)
        refused_work = taken = 0
        while taken < 200:
            try:
                log.require_room()
            except InfrastructureError as error:
                assert error.reason == "audit-full"
                refused_work += 1
            try:
                await log.append(row(taken))
            except SpoolFullError:
                break
            taken += 1
        assert 0 < refused_work < taken < 200
        assert await log.retire() == 0  # the sink has nothing yet
        acknowledged = taken
        assert await log.retire() > 0
        log.require_room()
        await log.append(row(1000))
        acknowledged = 0
    assert verify_trail(tmp_path).first > 0
    total = sum(p.stat().st_size for p in [*segments(tmp_path), spool_path(tmp_path)])
    assert total < 40_000


async def test_without_a_sink_nothing_goes_for_want_of_room(tmp_path: Path) -> None:
    limits = SpoolLimits(segment_bytes=6000, max_bytes=40_000)
    async with opened(tmp_path, limits=limits) as log:
        taken = 0
        with suppress(SpoolFullError):
            while taken < 200:
                await log.append(row(taken))
                taken += 1
        assert 0 < taken < 200
        assert await log.retire() == 0
    assert verify_trail(tmp_path).first == 0


async def test_a_failed_removal_is_tried_again(tmp_path: Path) -> None:
    await written(tmp_path, 20)
    limits = SpoolLimits(segment_bytes=6000, max_bytes=600_000, keep_seconds=1e-6)
    failing = 1

    def fault(step: str) -> None:
        nonlocal failing
        if step == "retire" and failing:
            failing -= 1
            raise OSError(errno.EIO, "input/output error")

    async with opened(tmp_path, limits=limits, fault=fault) as log:
        # The first look is the writer's own at its start.
        for _ in range(50):
            if not segments(tmp_path):
                break
            await log.retire()
    assert failing == 0
    assert segments(tmp_path) == []
    verify_trail(tmp_path)


async def test_a_reader_goes_on_while_the_writer_rotates_and_retires(tmp_path: Path) -> None:
    limits = SpoolLimits(segment_bytes=6000, max_bytes=600_000, keep_seconds=1e-6)
    async with opened(tmp_path, limits=limits) as log:
        for number in range(60):
            await log.append(row(number))
            if number % 7 == 0:
                await log.retire()
            verified = await asyncio.to_thread(verify_trail, tmp_path)
            assert verified.count >= number


async def test_events_of_a_full_disk_are_counted_and_the_chain_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as log:
        await log.append(row(0))

        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "no space")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", full)
            await log.event(SecurityEvent(name="x", at=1.0))
        assert log.lost_events == 1
    assert verify_trail(tmp_path).count == 1


def test_limits_that_could_not_work_are_refused() -> None:
    with pytest.raises(CallerError):
        SpoolLimits(segment_bytes=0)
    with pytest.raises(CallerError):
        SpoolLimits(segment_bytes=100, max_bytes=150)
    with pytest.raises(CallerError):
        SpoolLimits(keep_seconds=-1)
