"""A worker's result key and its successor on disk, whenever the worker dies."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from hpcc.core import CallerError, ImageDigest, Isolation
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.api import Registration
from hpcc.worker.base.result_key import KEY_NAME, NEXT_NAME, ResultKeyFiles
from hpcc_testkit.services.idp_tokens import FixedClock

EMPTY = Registration(
    worker_id="w1",
    endpoint="127.0.0.1:1",
    certificate=b"certificate",
    isolation=Isolation.QEMU_TCG,
    images=(ImageDigest("sha256:" + "ab" * 32),),
    capacity=2,
    result_key=b"",
    result_proof=b"",
)


def opened(keys: Path) -> ResultKeyFiles:
    return ResultKeyFiles(keys, SystemClock(), 0.0)


async def promoted(files: ResultKeyFiles, seconds: float = 60.0) -> bool:
    """Run until a successor signs; False if none does in this time."""
    signs = asyncio.Event()
    task = asyncio.create_task(files.run(signs.set))
    try:
        async with asyncio.timeout(seconds):
            await signs.wait()
    except TimeoutError:
        return False
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return True


async def test_a_successor_signs_after_the_scheduler_has_listed_it(tmp_path: Path) -> None:
    files = opened(tmp_path)
    first = files.signer.key_id
    assert not files.make_next("0" * 32)
    assert files.make_next(first)
    assert not files.make_next(first), "one is enough"
    assert not await promoted(files, 0.1)
    registration = files.put_into(EMPTY)
    assert registration.is_key_announced
    assert files.signer.public != registration.result_key
    files.admitted(files.put_into(EMPTY))
    assert await promoted(files)
    assert files.signer.public == registration.result_key
    assert not files.put_into(EMPTY).is_key_announced
    assert files.public_or_none(first) is None
    assert os.listdir(tmp_path) == [KEY_NAME]
    assert opened(tmp_path).signer.key_id == files.signer.key_id


async def test_a_successor_waits_out_its_announcement(tmp_path: Path) -> None:
    clock = FixedClock()
    files = ResultKeyFiles(tmp_path, clock, 60.0)
    assert files.make_next(files.signer.key_id)
    files.admitted(files.put_into(EMPTY))
    assert await promoted(files)
    assert clock.slept == [60.0]


async def test_a_key_signs_only_when_its_file_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, moves = FixedClock(), iter([False, False, True])
    files = ResultKeyFiles(tmp_path, clock, 60.0)
    monkeypatch.setattr(files, "_has_moved", lambda: next(moves))
    assert files.make_next(files.signer.key_id)
    files.admitted(files.put_into(EMPTY))
    assert await promoted(files)
    assert list(moves) == []
    assert clock.slept == [60.0, 30.0, 30.0]


async def test_a_worker_that_dies_before_its_new_key_signs_continues_with_both(
    tmp_path: Path,
) -> None:
    files = opened(tmp_path)
    assert files.make_next(files.signer.key_id)
    again = opened(tmp_path)
    assert again.signer.key_id == files.signer.key_id
    assert again.put_into(EMPTY).result_key == files.put_into(EMPTY).result_key
    again.admitted(again.put_into(EMPTY))
    assert await promoted(again)


async def test_a_registration_with_the_old_key_announces_nothing(tmp_path: Path) -> None:
    files = opened(tmp_path)
    before = files.put_into(EMPTY)
    assert files.make_next(files.signer.key_id)
    files.admitted(before)
    assert not await promoted(files, 0.1)


async def test_a_key_that_cannot_be_moved_leaves_the_old_one_in_use(tmp_path: Path) -> None:
    files = opened(tmp_path)
    first = files.signer.key_id
    assert files.make_next(first)
    files.admitted(files.put_into(EMPTY))
    (tmp_path / NEXT_NAME).unlink()
    assert not await promoted(files, 0.1)
    assert files.signer.key_id == first


def test_a_damaged_successor_is_refused_at_the_start(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / NEXT_NAME).touch(mode=0o600)
    (tmp_path / NEXT_NAME).write_text("no key")
    with pytest.raises(CallerError, match="remove it"):
        opened(tmp_path)
