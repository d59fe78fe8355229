"""A directory of inputs stays for the next tree only if nothing about it changed."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.agent.linux import kept
from hpcc.core import IntegrityError
from hpcc_testkit.guests.staged_trees import StagingGuest

DATA = [b"int %d;\n" % n for n in range(8)]
HEADERS = [(f"inc/{n}.h", data) for n, data in enumerate(DATA[:4])]
NAMES = sorted(f"{n}.h" for n in range(4))


@pytest.fixture
def guest(tmp_path: Path) -> StagingGuest:
    guest = StagingGuest(tmp_path)
    for data in DATA:
        guest.receive(data)
    return guest


async def test_an_unchanged_directory_is_in_the_next_tree(guest: StagingGuest) -> None:
    first = await guest.tree(("unit.c", DATA[5]), *HEADERS, outputs=("unit.o",))
    inode, names = first.inode("inc"), first.names("inc")
    (first.root / "unit.o").write_text("object")
    (first.root / "inc/1.h").read_bytes()
    first.remove()
    assert guest.waiting == 1
    second = await guest.tree(("unit.c", DATA[6]), *HEADERS, outputs=("unit.o",))
    assert (second.inode("inc"), second.names("inc"), guest.waiting) == (inode, names, 0)
    assert sorted(names) == NAMES
    assert [(second.root / path).read_bytes() for path, _ in HEADERS] == DATA[:4]
    assert not (second.root / "unit.o").exists()


def _put(d: Path) -> None:
    (d / "left.h").write_text("evil")


def _put_and_remove(d: Path) -> None:
    _put(d)
    (d / "left.h").unlink()


def _remove(d: Path) -> None:
    (d / "1.h").unlink()


def _replace(d: Path) -> None:
    _remove(d)
    (d / "1.h").write_bytes(DATA[1])


def _rename_and_back(d: Path) -> None:
    (d / "0.h").rename(d / "left")
    (d / "left").rename(d / "0.h")


def _swap(d: Path) -> None:
    (d / "0.h").rename(d / "left")
    (d / "1.h").rename(d / "0.h")
    (d / "left").rename(d / "1.h")


def _mode_and_back(d: Path) -> None:
    d.chmod(0o700)
    d.chmod(0o755)


def _time(d: Path) -> None:
    os.utime(d, ns=(1, d.stat().st_mtime_ns))


def _mark(d: Path) -> None:
    try:
        os.setxattr(d, "user.left", b"1")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        _mode_and_back(d)  # a file system without marks


def _mark_and_unmark(d: Path) -> None:
    _mark(d)
    if "user.left" in os.listxattr(d):
        os.removexattr(d, "user.left")


def _directory(d: Path) -> None:
    (d / "left").mkdir()


def _link(d: Path) -> None:
    (d / "left.h").symlink_to("/etc/passwd")


def _move(d: Path) -> None:
    d.rename(d.parent / "away")


def _move_and_back(d: Path) -> None:
    d.rename(d.parent / "away")
    (d.parent / "away").rename(d)


def _become_a_link(d: Path) -> None:
    _move(d)
    d.symlink_to("away")


def _become_another(d: Path) -> None:
    _move(d)
    d.mkdir()
    for name in NAMES:
        (d.parent / "away" / name).rename(d / name)


ATTACKS: list[Callable[[Path], None]] = [
    _put, _put_and_remove, _remove, _replace, _rename_and_back, _swap, _mode_and_back, _time, _mark,
    _mark_and_unmark, _directory, _link, _move, _move_and_back, _become_a_link, _become_another,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_a_changed_directory_is_not_in_the_next_tree(
    guest: StagingGuest, attack: Callable[[Path], None]
) -> None:
    (await guest.tree(*HEADERS)).remove()  # it is kept already, so no time of this tree's is near
    tree = await guest.tree(*HEADERS)
    names = tree.names("inc")
    attack(tree.root / "inc")
    tree.remove()
    assert guest.waiting == 0
    again = await guest.tree(*HEADERS)
    assert again.names("inc") == names
    assert os.listdir(again.root) == ["inc"]
    status = (again.root / "inc").stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o755, os.getuid())
    assert [(again.root / path).read_bytes() for path, _ in HEADERS] == DATA[:4]


async def test_a_parent_that_was_replaced_takes_its_directories_along(guest: StagingGuest) -> None:
    headers = [(f"a/{path}", data) for path, data in HEADERS]
    tree = await guest.tree(*headers)
    (tree.root / "a").rename(tree.root / "b")
    (tree.root / "a").symlink_to("b")
    tree.remove()
    assert guest.waiting == 0


@pytest.mark.parametrize(
    "inputs",
    [
        HEADERS[:3],
        [*HEADERS, ("inc/4.h", DATA[4])],
        [*HEADERS[1:], HEADERS[0]],
        [*HEADERS[:3], ("inc/3.h", DATA[4])],
        [*HEADERS[:3], ("inc/4.h", DATA[3])],
        [(f"inc2/{path[4:]}", data) for path, data in HEADERS],
    ],
    ids=["fewer", "more", "another order", "other content", "another name", "another place"],
)
async def test_only_the_same_files_in_the_same_place_get_it(
    guest: StagingGuest, inputs: list[tuple[str, bytes]]
) -> None:
    (await guest.tree(*HEADERS)).remove()
    tree = await guest.tree(*inputs)
    assert guest.waiting == 1
    found = {
        str(path.relative_to(tree.root)): path.read_bytes()
        for path in tree.root.rglob("*")
        if path.is_file()
    }
    assert found == dict(inputs)


async def test_an_empty_directory_of_one_tree_is_not_in_the_next(guest: StagingGuest) -> None:
    for _ in range(2):
        one = await guest.tree(*HEADERS, input_directories=("inc/none", "else/where"))
        assert os.listdir(one.root / "inc/none") == os.listdir(one.root / "else/where") == []
        (one.root / "inc/none/left.h").write_text("evil")
        one.remove()
        other = await guest.tree(*HEADERS)
        assert sorted(os.listdir(other.root)) == ["inc"]
        assert sorted(other.names("inc")) == NAMES
        other.remove()


async def test_directories_in_kept_ones_are_kept_or_removed_one_by_one(guest: StagingGuest) -> None:
    inner = [(f"inc/sub/{n}.h", data) for n, data in enumerate(DATA[4:])]
    outputs = ("inc/obj/unit.o",)
    first = await guest.tree(*HEADERS, *inner, outputs=outputs)
    inodes = [first.inode("inc"), first.inode("inc/sub")]
    (first.root / "inc/obj/unit.o").write_text("object")
    first.remove()
    assert guest.waiting == 2
    second = await guest.tree(*HEADERS, *inner, outputs=outputs)
    assert [second.inode("inc"), second.inode("inc/sub")] == inodes
    assert os.listdir(second.root / "inc/obj") == []
    (second.root / "inc/sub/left.h").write_text("evil")
    second.remove()
    assert guest.waiting == 1
    third = await guest.tree(*HEADERS)
    assert third.inode("inc") == inodes[0]
    assert sorted(third.names("inc")) == NAMES


async def test_an_input_that_the_compile_may_write_is_no_link_in_a_kept_directory(
    guest: StagingGuest,
) -> None:
    for _ in range(2):
        tree = await guest.tree(*HEADERS, outputs=("inc/0.h",))
        (tree.root / "inc/0.h").write_bytes(b"new")
        tree.remove()
        assert guest.waiting == 0
    assert guest.blob(DATA[0]).read_bytes() == DATA[0]


async def test_two_names_of_one_content_are_two_files_also_with_a_kept_directory(
    guest: StagingGuest,
) -> None:
    (await guest.tree(*HEADERS)).remove()
    tree = await guest.tree(("a.h", DATA[0]), *HEADERS)
    assert guest.waiting == 1
    assert tree.inode("a.h") != tree.inode("inc/0.h")
    assert (tree.root / "inc/0.h").read_bytes() == DATA[0]


async def test_a_blob_that_changed_while_a_directory_waited_is_noticed(
    guest: StagingGuest,
) -> None:
    """Only root could do this."""
    (await guest.tree(*HEADERS)).remove()
    blob = guest.blob(DATA[0])
    blob.chmod(0o644)
    blob.write_bytes(DATA[0].upper())
    blob.chmod(0o444)
    with pytest.raises(IntegrityError):
        await guest.tree(*HEADERS)
    assert guest.waiting == 0


async def test_links_of_other_trees_come_and_go_meanwhile(guest: StagingGuest) -> None:
    first = await guest.tree(*HEADERS)
    other = await guest.tree(*HEADERS)
    assert first.inode("inc") != other.inode("inc")
    inode = first.inode("inc")
    first.remove()
    (other.root / "inc/left.h").write_text("evil")
    other.remove()
    assert guest.waiting == 1
    assert (await guest.tree(*HEADERS)).inode("inc") == inode


async def test_an_evicted_blob_takes_its_directories_along(tmp_path: Path) -> None:
    guest = StagingGuest(tmp_path, budget_bytes=sum(map(len, DATA[:3])))
    digests = [guest.receive(data) for data in DATA[:4]]
    (await guest.tree(*HEADERS)).remove()
    assert guest.blob(DATA[1]).stat().st_nlink == 2
    guest.blobs.unpin(digests)
    assert guest.waiting == 0
    assert guest.blob(DATA[1]).stat().st_nlink == 1
    assert not guest.blob(DATA[0]).exists()


async def test_a_blob_that_is_evicted_before_its_tree_is_removed_keeps_no_room(
    tmp_path: Path,
) -> None:
    """The agent removes a tree after the answer, when its blobs are not pinned any more."""
    guest = StagingGuest(tmp_path, budget_bytes=0)
    digests = [guest.receive(data) for data in DATA[:4]]
    tree = await guest.tree(*HEADERS)
    guest.blobs.unpin(digests)
    tree.remove()
    assert guest.waiting == 0


async def test_what_waits_is_bounded(guest: StagingGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST_NAMES", 8)
    trees = [
        await guest.tree(*[(f"inc{n}/{i}.h", data) for i, data in enumerate(DATA[:4])])
        for n in range(3)
    ]
    for tree in trees:
        tree.remove()
    assert guest.waiting == 2
    assert guest.blob(DATA[0]).stat().st_nlink == 3
    monkeypatch.setattr(kept, "_MOST_OF_ONE_PATH", 2)
    trees = [await guest.tree(*HEADERS[:3]) for _ in range(3)]
    for tree in trees:
        tree.remove()
    assert guest.waiting == 2


async def test_a_tree_that_was_not_complete_is_removed(guest: StagingGuest) -> None:
    inputs = [(f"inc/{n}.h", data) for n, data in enumerate(DATA)]
    staging = asyncio.ensure_future(guest.tree(*inputs))
    await asyncio.sleep(0)
    staging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await staging
    assert guest.waiting == 0
    assert sorted((await guest.tree(*inputs)).names("inc")) == [f"{n}.h" for n in range(8)]


async def test_directories_that_are_too_deep_are_removed(guest: StagingGuest) -> None:
    deep = "/".join(["d"] * 40)
    inputs = [*((f"{deep}/inc/{n}.h", data) for n, data in enumerate(DATA[4:])), *HEADERS]
    for _ in range(2):
        tree = await guest.tree(*inputs)
        assert sorted(tree.names(f"{deep}/inc")) == NAMES
        tree.remove()
        assert guest.waiting == 1
