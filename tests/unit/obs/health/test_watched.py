"""Conditions that take time: a peer, a disk. Whatever they do, the service goes on."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from hpcc.files.disk import size_of_disk
from hpcc.obs.health import watched
from hpcc.obs.health.watched import DiskRoom, Watched
from hpcc.ports import SystemClock


async def test_it_holds_once_it_was_looked_at() -> None:
    answers = ["no answer", ""]

    async def look() -> str:
        return answers.pop(0)

    found = Watched("the peer", look, SystemClock())
    assert found.reason() == "the peer was not asked yet"
    await found.look()
    assert found.reason() == "no answer"
    await found.look()
    assert found.reason() == ""


async def test_who_hangs_or_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_ANSWER_SECONDS", 0.01)

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    async def fail() -> str:
        raise ValueError

    for look, reason in ((hang, "does not answer in 0.01 s"), (fail, "cannot be looked at")):
        found = Watched("the peer", look, SystemClock())
        await found.look()
        assert reason in found.reason()


async def test_a_look_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[BaseException | None] = [
        ValueError("a"), ValueError("a"), ValueError("b"), None, ValueError("b"),
        asyncio.CancelledError(),
    ]  # fmt: skip

    async def look() -> str:
        if (failure := failures.pop(0)) is not None:
            raise failure
        return ""

    found, logged = Watched("the peer", look, SystemClock()), []
    while failures:
        caplog.clear()
        await found.look()
        logged.append([str(r.exc_info and r.exc_info[1]) for r in caplog.records])
    assert logged == [["a"], [], ["b"], [], ["b"], [""]]
    assert found.reason() == "the peer cannot be looked at: see the log"


async def test_a_look_that_hangs_ends_with_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_ANSWER_SECONDS", 0.01)
    ended, is_asked = asyncio.Event(), asyncio.Event()

    async def hang() -> str:
        try:
            is_asked.set()
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with asyncio.TaskGroup() as group:
        task = group.create_task(Watched("the peer", hang, SystemClock()).run())
        await is_asked.wait()
        task.cancel()
        async with asyncio.timeout(20):
            await ended.wait()


async def test_a_directory_that_may_not_be_searched_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    assert await DiskRoom([tmp_path]).look() == f"{tmp_path}: Permission denied"


async def test_a_full_disk_names_its_directory(tmp_path: Path) -> None:
    large = 1 << 40
    disks = {tmp_path / "a": (large, large), tmp_path / "b": (5 << 20, large)}
    for directory in disks:
        directory.mkdir()
    room = DiskRoom(disks, disks.__getitem__)
    assert await room.look() == f"{tmp_path / 'b'}: 5 MiB are free, and 64 are needed"
    for enough in ((64 << 20, large), (1 << 20, 16 << 20)):
        disks[tmp_path / "b"] = enough
        assert await room.look() == ""
    disks[tmp_path / "b"] = (1 << 19, 16 << 20)
    assert await room.look() == f"{tmp_path / 'b'}: 0 MiB are free, and 1 are needed"

    def broken(_: Path) -> tuple[int, int]:
        raise OSError(errno.EIO, "Input/output error")

    assert await DiskRoom([tmp_path], broken).look() == f"{tmp_path}: Input/output error"


async def test_a_directory_that_is_made_later_counts_by_its_parent(tmp_path: Path) -> None:
    free, whole = size_of_disk(tmp_path)
    assert 0 < free <= whole
    asked = []

    def size_of(directory: Path) -> tuple[int, int]:
        asked.append(directory)
        return 1 << 40, 1 << 40

    assert await DiskRoom([tmp_path / "a/b"], size_of).look() == ""
    assert asked == [tmp_path]


@pytest.mark.parametrize("is_disk", [True, False])
async def test_a_look_that_hangs_takes_one_thread(
    monkeypatch: pytest.MonkeyPatch, *, is_disk: bool
) -> None:
    """An image store hangs as well: with a thread for each look, the service would have none."""
    monkeypatch.setattr(watched, "_ANSWER_SECONDS", 0.01)
    asked, end = [], threading.Event()

    def hang(directory: Path) -> tuple[int, int]:
        asked.append(directory)
        end.wait(20)
        return 1 << 40, 1 << 40

    async def look() -> str:
        await asyncio.to_thread(hang, Path("/"))
        return ""

    looks = DiskRoom([Path("/")], hang).look if is_disk else look
    found = Watched("the disk", looks, SystemClock())
    try:
        for _ in range(5):
            await found.look()
            assert "does not answer" in found.reason()
        assert len(asked) == 1
    finally:
        end.set()
    monkeypatch.setattr(watched, "_ANSWER_SECONDS", 20.0)
    await found.look()
    assert found.reason() == ""
