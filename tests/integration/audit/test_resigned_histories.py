"""Histories that a worker's own key signed anew are refused if they change what a scheduler held.

The oracle is two lists of rows: what was written when the scheduler got its head, and what the
trail has later. It shares no code with trees or proofs. `HPCC_TAMPERINGS` and
`HPCC_TAMPERING_SEED` choose how many histories there are and which.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.tree.head import read_tree_head, what_changed
from hpcc.ports import AuditRow, SignedTree, TreeMark
from hpcc_testkit.farm.audit_rows import SMALL, opened, row
from hpcc_testkit.services.idp_tokens import NOW, FixedClock

COUNT = max(int(os.environ.get("HPCC_TAMPERINGS", "60")) // 3, 5)
SEED = int(os.environ.get("HPCC_TAMPERING_SEED", "122"))
pytestmark = pytest.mark.timeout(120 + 30 * COUNT)


class History:
    """A trail and its rows; each writing is a start of the worker, at any time of its clock."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.directory, self._chance = directory, chance
        self.rows: list[AuditRow] = []

    async def write(self, rows: list[AuditRow], held: TreeMark | None = None) -> SignedTree:
        """Write rows in some starts; return the head, with the proof from `held`."""
        said, rest = None, list(rows)
        while rest or said is None:
            count = self._chance.randrange(len(rest) + 1)
            # A clock that jumps: by years, in both directions.
            clock = FixedClock(NOW + self._chance.uniform(-1e9, 1e9))
            async with opened(self.directory, limits=SMALL, clock=clock) as log:
                for item in rest[:count]:
                    await log.append(item)
                    clock.time += self._chance.uniform(-1e6, 1e6)
                said = log.signed_tree(held)
            assert said is not None
            self.rows += rest[:count]
            rest = rest[count:]
        return said


def other(chance: random.Random, rows: list[AuditRow]) -> tuple[str, list[AuditRow]]:
    """Return what a worker might have written in place of `rows`, and the name of the change."""
    way = chance.choice(("cut", "change", "delete", "insert", "swap", "replay", "same", "none"))
    place, new = chance.randrange(len(rows)), list(rows)
    if way == "cut":
        new = rows[:place]
    elif way == "change":
        new[place] = row(900 + place, row_id=rows[place].row_id)
    elif way == "delete":
        del new[place]
    elif way == "insert":
        new.insert(place, row(800 + place))
    elif way == "swap":
        new[place], new[place - 1] = new[place - 1], new[place]
    elif way == "replay":
        new[place:] = rows[: len(rows) - place]
    elif way == "none":
        new = []
    more = [row(700 + n) for n in range(chance.randrange(8))]
    return way, new + more


async def test_a_history_that_changes_what_was_held_is_refused_and_no_other(
    tmp_path: Path,
) -> None:
    wrong: list[tuple[int, str, str]] = []
    verdicts: Counter[str] = Counter()
    for seed in range(SEED, SEED + COUNT):
        chance = random.Random(seed)
        one = History(tmp_path / "one", chance)
        said = await one.write([row(n) for n in range(chance.randrange(2, 14))])
        held = read_tree_head("w1", said.checkpoint, said.key)
        known = list(one.rows)
        way, rows = other(chance, known)
        two = History(tmp_path / "two", chance)
        said = await two.write(rows, held.mark)
        new = read_tree_head("w1", said.checkpoint, said.key)
        why = what_changed(held, new, said)
        is_changed = rows[: len(known)] != known
        verdicts["refused" if why else "extends"] += 1
        if bool(why) != is_changed:
            wrong.append((seed, way, why))
        shutil.rmtree(one.directory)
        shutil.rmtree(two.directory)
    sys.stdout.write(f"{COUNT} histories from seed {SEED}: {dict(verdicts)}\n")
    assert wrong == []
    assert len(verdicts) == 2


async def test_an_old_directory_that_goes_on_is_refused_and_one_that_is_current_is_not(
    tmp_path: Path,
) -> None:
    """A copy of the whole directory, with seals, hashes and signed head, from any earlier time."""
    chance = random.Random(SEED)
    one, copies = History(tmp_path / "one", chance), list[tuple[int, Path]]()
    for number in range(12):
        said = await one.write([row(number)])
        copies.append((number + 1, tmp_path / f"copy-{number}"))
        shutil.copytree(one.directory, copies[-1][1])
    held = read_tree_head("w1", said.checkpoint, said.key)
    for count, directory in copies:
        again = History(directory, chance)
        said = await again.write([row(50 + n) for n in range(15)], held.mark)
        new = read_tree_head("w1", said.checkpoint, said.key)
        assert bool(what_changed(held, new, said)) == (count < 12), count


async def test_a_current_head_in_an_old_directory_stops_the_start(tmp_path: Path) -> None:
    """The worker's own head says that records are missing."""
    chance = random.Random(SEED)
    one = History(tmp_path / "one", chance)
    await one.write([row(n) for n in range(6)])
    shutil.copytree(one.directory, tmp_path / "old")
    await one.write([row(n) for n in range(6, 16)])
    shutil.copyfile(one.directory / "tree.head", tmp_path / "old/tree.head")
    with pytest.raises(AuditDamagedError, match="the end is missing"):
        async with opened(tmp_path / "old", limits=SMALL):
            pass
