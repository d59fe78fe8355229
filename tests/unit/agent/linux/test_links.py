"""Inputs are links to blobs, each checked before it is made, and copies where links would show."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hpcc.agent.base.blobs import INPUT_TIME_NS
from hpcc.agent.linux import links
from hpcc.agent.linux.linked_file import LinkedFile
from hpcc.agent.linux.links import TreeLinks
from hpcc.core import Digest, IntegrityError
from hpcc_testkit.guests.staged_trees import StagingGuest

ONE, TWO = b"int one;\n", b"int two;\n"


@pytest.fixture
def guest(tmp_path: Path) -> StagingGuest:
    guest = StagingGuest(tmp_path)
    guest.receive(ONE)
    guest.receive(TWO)
    return guest


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the hashes of the blobs whose content is read before a link, in order."""
    found: list[str] = []
    check = LinkedFile.check

    def counted(file: LinkedFile) -> None:
        found.append(file.digest.hash)
        check(file)

    monkeypatch.setattr(LinkedFile, "check", counted)
    return found


async def test_an_input_is_the_blobs_own_file(guest: StagingGuest) -> None:
    tree = await guest.tree(("a/one.h", ONE))
    status = (tree.root / "a/one.h").stat()
    assert status.st_ino == guest.blob(ONE).stat().st_ino
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o444, INPUT_TIME_NS)


async def test_content_is_read_once_while_only_links_come_and_go(
    guest: StagingGuest, checked: list[str]
) -> None:
    for _ in range(3):
        first = await guest.tree(("one.h", ONE), ("two.h", TWO))
        second = await guest.tree(("one.h", ONE))
        first.remove()
        third = await guest.tree(("x.h", TWO))
        second.remove()
        third.remove()
    assert sorted(checked) == sorted(Digest.of(data).hash for data in (ONE, TWO))


@pytest.mark.parametrize("when", ["between", "in a tree"])
async def test_changed_bytes_are_noticed_whatever_the_change_restores(
    guest: StagingGuest, when: str
) -> None:
    """Only root could do this. Size, inode, mode and time are as before; ctime is not."""
    tree = await guest.tree(("one.h", ONE))
    if when == "between":
        tree.remove()
    blob = guest.blob(ONE)
    blob.chmod(0o644)
    blob.write_bytes(ONE.upper())
    blob.chmod(0o444)
    os.utime(blob, ns=(INPUT_TIME_NS, INPUT_TIME_NS))
    if when == "in a tree":
        tree.remove()
    with pytest.raises(IntegrityError):
        await guest.tree(("one.h", ONE))


@pytest.mark.parametrize("change", ["mode", "file"])
async def test_a_blob_that_others_may_write_is_refused(guest: StagingGuest, change: str) -> None:
    (await guest.tree(("one.h", ONE))).remove()
    blob = guest.blob(ONE)
    if change == "mode":
        blob.chmod(0o666)
    else:
        blob.unlink()
        blob.write_bytes(ONE)
    with pytest.raises(IntegrityError):
        await guest.tree(("one.h", ONE))


async def test_a_replaced_name_costs_one_reading_and_changes_no_other_tree(
    guest: StagingGuest, checked: list[str]
) -> None:
    tree, other = await guest.tree(("one.h", ONE)), await guest.tree(("one.h", ONE))
    (tree.root / "one.h").unlink()
    (tree.root / "one.h").write_text("evil")
    tree.remove()
    assert (other.root / "one.h").read_bytes() == ONE
    other.remove()
    for _ in range(2):
        again = await guest.tree(("one.h", ONE))
        assert (again.root / "one.h").read_bytes() == ONE
        again.remove()
    assert checked == [Digest.of(ONE).hash] * 2


async def test_a_second_link_that_a_compile_made_costs_a_reading(
    guest: StagingGuest, checked: list[str]
) -> None:
    tree = await guest.tree(("one.h", ONE))
    os.link(tree.root / "one.h", tree.root / "again.h")
    tree.remove()
    (await guest.tree(("one.h", ONE))).remove()
    assert len(checked) == 2


async def test_two_paths_of_a_tree_are_never_one_file(guest: StagingGuest) -> None:
    for _ in range(2):
        tree = await guest.tree(("a.h", ONE), ("b.h", ONE), ("c.h", TWO))
        assert len({tree.inode(name) for name in ("a.h", "b.h", "c.h")}) == 3
        times = {(tree.root / name).stat().st_mtime_ns for name in ("a.h", "b.h", "c.h")}
        assert times == {INPUT_TIME_NS}
        assert (tree.root / "b.h").read_bytes() == ONE
        tree.remove()


async def test_each_mode_is_a_separate_file(guest: StagingGuest) -> None:
    tree = TreeLinks(guest.linked)
    plain, program = guest.directory / "plain", guest.directory / "program"
    digest = Digest.of(ONE)
    tree.place(digest, str(plain), is_executable=False, uid=os.getuid())
    tree.place(digest, str(program), is_executable=True, uid=os.getuid())
    assert [p.stat().st_mode & 0o777 for p in (plain, program)] == [0o444, 0o555]
    assert plain.stat().st_ino != program.stat().st_ino
    assert program.stat().st_nlink == 2
    assert program.stat().st_mtime_ns == INPUT_TIME_NS


async def test_what_a_compile_writes_is_its_own_copy(guest: StagingGuest) -> None:
    tree = await guest.tree(
        ("a.o", ONE), ("d/b.o", ONE), ("d.h", TWO), outputs=("a.o",), output_directories=("d",)
    )
    modes = [(tree.root / name).stat().st_mode & 0o777 for name in ("a.o", "d/b.o", "d.h")]
    assert modes == [0o644, 0o644, 0o444]
    (tree.root / "a.o").write_bytes(b"new")
    (tree.root / "d/b.o").write_bytes(b"new")
    assert guest.blob(ONE).read_bytes() == ONE


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EPERM, errno.EXDEV])
async def test_a_refused_link_is_a_copy(
    guest: StagingGuest, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(links.os, "link", refuse)
    tree = await guest.tree(("one.h", ONE))
    assert (tree.root / "one.h").read_bytes() == ONE
    assert tree.inode("one.h") != guest.blob(ONE).stat().st_ino
    tree.remove()
    assert guest.blob(ONE).read_bytes() == ONE


async def test_a_full_disk_is_no_reason_to_copy(
    guest: StagingGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(links.os, "link", refuse)
    with pytest.raises(OSError, match="full"):
        await guest.tree(("one.h", ONE))


async def test_an_evicted_blob_takes_its_executable_form_along(tmp_path: Path) -> None:
    guest = StagingGuest(tmp_path, budget_bytes=0)
    digest = guest.receive(ONE)
    tree = TreeLinks(guest.linked)
    tree.place(digest, str(tmp_path / "program"), is_executable=True, uid=os.getuid())
    assert len(list((tmp_path / "blobs").iterdir())) == 3
    guest.blobs.unpin([digest])
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == ["kept"]
    # The same blob again is another file, about which nothing is known.
    guest.receive(ONE)
    tree.place(digest, str(tmp_path / "again"), is_executable=True, uid=os.getuid())
    assert (tmp_path / "again").read_bytes() == ONE
