"""Torn tails: cut and kept also on a full disk, and never more than a few of them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import spool_path
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.tail import MAX_TORN
from hpcc.audit.verify import verify_trail
from hpcc_testkit.farm.audit_rows import SMALL, opened, row, written

TORN = b"\0\x10\0\0half of a record"


def tear(directory: Path, data: bytes = TORN) -> None:
    with spool_path(directory).open("ab") as file:
        file.write(data)


def torn_events(directory: Path) -> list[dict[str, str]]:
    query = Query(kind="event", name="audit-torn-tail", limit=1000)
    found = TrailReader(directory).find(query, oldest_first=True)
    return [dict(event.body["fields"]) for event in found]  # type: ignore[call-overload]  # pairs


class FullDisk:
    """A disk without room until something is cut off."""

    def __init__(self, *, until_cut: bool) -> None:
        self._is_full, self._until_cut = True, until_cut

    def __call__(self, step: str) -> None:
        if step == "torn-cut":
            self._is_full = not self._until_cut
        elif self._is_full and step in {"torn-write", "torn-open", "torn-sync"}:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("until_cut", [True, False])
async def test_a_full_disk_does_not_stop_a_start_that_has_to_cut(
    tmp_path: Path, until_cut: bool
) -> None:
    """What is cut off makes the room for its copy. Without room even then, its hash is left."""
    trail = tmp_path / "trail"
    await written(trail, 3)
    tear(trail)
    async with opened(trail, limits=SMALL, fault=FullDisk(until_cut=until_cut)) as log:
        await log.append(row(3))
    (event,) = torn_events(trail)
    kept = [p.read_bytes() for p in trail.glob("torn-*")]
    assert kept == ([TORN] if until_cut else [])
    assert bool(event["file"]) is until_cut
    assert len(event["sha256"]) == 64
    assert verify_trail(trail).count == 5


async def test_another_fault_of_the_disk_cuts_nothing(tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    await written(trail, 3)
    tear(trail)
    before = spool_path(trail).read_bytes()

    def fault(step: str) -> None:
        if step == "torn-write":
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(Exception, match="Input/output"):
        async with opened(trail, limits=SMALL, fault=fault):
            pass
    assert spool_path(trail).read_bytes() == before


async def test_torn_tails_take_room_and_are_at_most_a_few(tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    await written(trail, 1, limits=SpoolLimits())
    for number in range(MAX_TORN + 3):
        tear(trail, TORN + bytes([number]) * 5000)
        async with opened(trail) as log:
            size, _ = log.size
    kept = list(trail.glob("torn-*"))
    assert len(kept) == MAX_TORN
    assert size > sum(p.stat().st_size for p in kept)
    events = torn_events(trail)
    assert [e.get("removed") for e in events[-4:]] == [None, "1", "1", "1"]
    assert {p.name for p in kept} == {e["file"] for e in events[-MAX_TORN:]}


async def test_retention_removes_the_torn_tails_of_what_it_removes(tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    limits = SpoolLimits(segment_bytes=6300, max_bytes=60_000)
    await written(trail, 5, limits=limits)
    tear(trail)
    async with opened(trail, limits=limits) as log:
        log.hold_for(lambda: log.anchor[0])
        for number in range(40):
            await log.append(row(number))
            await log.retire()
    assert not list(trail.glob("torn-*"))
    assert torn_events(trail) == []
    verify_trail(trail)


async def test_a_kill_while_a_torn_tail_is_kept_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    await written(trail, 3)
    (trail / ".torn-00000000000000000003-0123456789abcdef.0011223344556677").write_bytes(b"part")
    async with opened(trail, limits=SMALL):
        pass
    assert not list(trail.glob(".torn-*"))
