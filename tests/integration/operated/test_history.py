"""A worker whose trail is not the one that it was gets no work until an operator has looked."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import event_of
from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import spool_path
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.signer.place import signer_directory
from hpcc.audit.tree.head import origin_of
from hpcc.audit.tree.note import NoteKey, open_note
from hpcc.core import RemoteFailure
from hpcc.identity.keys import load_or_create_signing_key
from hpcc_testkit.farm.audit_rows import opened, row
from hpcc_testkit.farm.processes import ProcessFarm, process_farm
from hpcc_testkit.hostile.tamperings import frames_of

pytestmark = pytest.mark.timeout(300)


def trail(farm: ProcessFarm) -> Path:
    return farm.directory / "worker/audit"


def worker_key(farm: ProcessFarm) -> Ed25519PrivateKey:
    """Take the key from the worker's signer, as its user or root can; the signer forgets its trail."""
    path = farm.worker_keys / "audit-signing.key"
    moved = signer_directory(path) / "key"
    if moved.exists():
        os.chown(moved, os.geteuid(), os.getegid())
        moved.rename(path)
    return load_or_create_signing_key(path)


async def history(farm: ProcessFarm, code: int = 0) -> list[dict[str, Any]]:
    said = await farm.hpcc("scheduler", "audit-history", "w1", "--json", code=code, output=True)
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def entries(farm: ProcessFarm, space: str) -> list[dict[str, Any]]:
    """Return entries of the control store, which the scheduler has open."""
    with closing(sqlite3.connect(farm.directory / "scheduler/state/scheduler.sqlite")) as db:
        rows = db.execute("SELECT value FROM entry WHERE space = ?", (space,))
        return [json.loads(value) for (value,) in rows]


async def holds(farm: ProcessFarm, count: int) -> None:
    """Wait until the scheduler holds a head of at least so many records."""
    async with asyncio.timeout(90):
        while True:
            sizes = [int(e["checkpoint"].split("\n")[1]) - 1 for e in entries(farm, "audit-trees")]
            if max(sizes, default=0) >= count:
                return
            await asyncio.sleep(0.1)


async def is_refused(farm: ProcessFarm, why: str) -> dict[str, Any]:
    """Wait until the worker is drained for its history; return what the store has of it."""
    async with asyncio.timeout(90):
        while not (said := entries(farm, "worker-drain")):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.1)
        assert why in said[0]["reason"]
        shown = await farm.hpcc("scheduler", "audit-history", code=3, output=True)
        assert "w1: CHANGED" in shown
        assert why in shown
        while True:
            with farm.client() as client:
                request = farm.request("refused")
                outcome = await asyncio.to_thread(client.compile, request, lambda: False)
            if isinstance(outcome, RemoteFailure):
                break
            await asyncio.sleep(0.2)
    (changed,) = [line for line in await history(farm, code=3) if "held" in line]
    for side in ("held", "new"):
        key = NoteKey(origin_of("w1"), bytes.fromhex(changed[side]["key"]))
        open_note(changed[side]["checkpoint"].encode(), [key])
    return changed


async def still_refused(farm: ProcessFarm, why: str) -> None:
    for part in ("worker", "scheduler"):
        await farm.kill(part)
        await (farm.start_worker() if part == "worker" else farm.start_scheduler())
        await is_refused(farm, why)
    wrong = await farm.hpcc("scheduler", "drain-worker", "w1", "--undo", code=2)
    assert "hpcc scheduler audit-history w1" in wrong


def events(farm: ProcessFarm, name: str) -> list[dict[str, str]]:
    reader = TrailReader(farm.directory / "scheduler/state/events")
    found = reader.find(Query(kind="event", name=name), oldest_first=True)
    return [dict(event_of(record).fields) for record in found]


@pytest.mark.parametrize("is_continued", [False, True])
async def test_cut_then_continue_is_refused_for_ever(tmp_path: Path, is_continued: bool) -> None:
    async with process_farm(tmp_path, scheduler={"lease_seconds": 2.0}) as farm:
        await farm.compiled(["a", "b", "c"])
        await holds(farm, 4)
        await farm.kill("worker")
        path = spool_path(trail(farm))
        frames = frames_of(path.read_bytes())
        path.write_bytes(b"".join(f.encoded() for f in frames[:-2]))
        # Else the signer stops the worker at its start.
        worker_key(farm)
        why = "it has"
        if is_continued:
            # By its own key, until it is longer than before.
            async with opened(trail(farm), key=worker_key(farm)) as log:
                for number in range(5):
                    await log.append(row(number, worker="w1"))
            why = "are not those that it had"
        await farm.start_worker()
        changed = await is_refused(farm, why)
        assert changed["proof"] or not is_continued
        await still_refused(farm, why)
        (event,) = events(farm, "audit-history-changed")
        assert (event["worker"], event["held"]) == ("w1", str(len(frames)))
        # The operator has looked, and both heads stay.
        await farm.hpcc(
            "scheduler", "audit-history", "w1", "--acknowledge", "--reason", "disk replaced"
        )
        await farm.back()
        forks = [line for line in await history(farm) if "acknowledged_at" in line]
        assert [(f["reason"], f["held"]) for f in forks] == [("disk replaced", changed["held"])]
        async with asyncio.timeout(60):
            while not (said := events(farm, "audit-history-acknowledged")):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.1)
        assert said[0]["reason"] == "disk replaced"


async def test_rewritten_history_drains_the_worker(tmp_path: Path) -> None:
    """By the worker's own key: a whole new trail, with more records than the old one."""
    async with process_farm(tmp_path, scheduler={"lease_seconds": 2.0}) as farm:
        await farm.compiled(["a", "b"])
        await holds(farm, 3)
        await farm.kill("worker")
        shutil.rmtree(trail(farm))
        async with opened(trail(farm), key=worker_key(farm)) as log:
            for number in range(9):
                await log.append(row(number, worker="w1"))
        await farm.start_worker()
        changed = await is_refused(farm, "are not those that it had")
        assert changed["held"]["key"] == changed["new"]["key"]
        wrong = await farm.hpcc("scheduler", "audit-history", "w1", "--acknowledge", code=2)
        assert "--reason" in wrong


async def test_a_trail_that_goes_on_is_extended_at_each_start(tmp_path: Path) -> None:
    async with process_farm(tmp_path, scheduler={"lease_seconds": 2.0}) as farm:
        for number, names in enumerate((["a"], ["b", "c"], ["d"])):
            await farm.compiled(names)
            await holds(farm, 2 + number)
            await farm.kill("worker")
            if number == 1:
                await farm.kill("scheduler")
                await farm.start_scheduler()
            await farm.start_worker()
            await farm.back()
        assert len(await history(farm)) == 1
        assert events(farm, "audit-history-changed") == []
