"""Both engines write the same outputs in a replay, and leave the same cases to the compiler."""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.replay.engine import Outcome

Write = Callable[..., int]
DONE, NOT_OURS = Outcome.DONE, Outcome.NOT_OURS


@contextmanager
def umask_of(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- new files ----


@pytest.mark.parametrize("data", [b"", b"x", b"long" * 100_000])
def test_a_new_file_has_the_bytes_and_the_mode(write: Write, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.o"
    assert write((path, data), mode=0o640) == DONE
    assert (path.read_bytes(), mode_of(path)) == (data, 0o640)


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
def test_the_umask_of_the_process_has_no_say(write: Write, tmp_path: Path, mask: int) -> None:
    old, kept = tmp_path / "old.o", tmp_path / "kept.d"
    for path in (old, kept):
        path.write_text("")
        path.chmod(0o604)
    with umask_of(mask):
        outcome = write(
            OutputFile(bytes(kept), b"k", keeps_mode=True),
            OutputFile(bytes(tmp_path / "new.d"), b"k", keeps_mode=True),
            (old, b"o"),
            (tmp_path / "new.o", b"n"),
            mode=0o664,
        )
    assert outcome == DONE
    names = ("old.o", "kept.d", "new.o", "new.d")
    assert [mode_of(tmp_path / n) for n in names] == [0o664, 0o604, 0o664, 0o664]


def test_a_name_of_any_bytes_is_written(write: Write, tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/ \xff\n.o"))
    assert write((path, b"x")) == DONE
    assert path.read_bytes() == b"x"


# ---- in a directory with a default ACL ----

_OF_ALL: int = 0xFFFFFFFF
_OWNER, _USER, _GROUP, _MASK, _OTHER = 1, 2, 4, 0x10, 0x20
# As `setfacl -d` makes them: for the owner only, and for one more user.
LISTS = {
    "closed": ([(_OWNER, 7, _OF_ALL), (_GROUP, 0, _OF_ALL), (_OTHER, 0, _OF_ALL)], 0o600),
    "one-more": (
        [(_OWNER, 7, _OF_ALL), (_USER, 6, 65534), (_GROUP, 4, _OF_ALL), (_MASK, 6, _OF_ALL),
         (_OTHER, 0, _OF_ALL)],
        0o660,
    ),
    "open": ([(_OWNER, 7, _OF_ALL), (_GROUP, 7, _OF_ALL), (_OTHER, 7, _OF_ALL)], 0o666),
}  # fmt: skip


def give_list(path: Path, entries: list[tuple[int, int, int]], kind: str = "default") -> None:
    """Give a file an ACL (Linux, include/uapi/linux/posix_acl_xattr.h)."""
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, f"system.posix_acl_{kind}", packed)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")


def list_of(path: Path) -> bytes:
    name = "system.posix_acl_access"
    return os.getxattr(path, name) if name in os.listxattr(path) else b""


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("old", [None, 0o644, 0o600])
def test_an_object_in_a_directory_with_a_default_acl_is_for_no_more_people_than_the_compilers(
    write: Write, tmp_path: Path, name: str, old: int | None
) -> None:
    entries, mode = LISTS[name]
    path = tmp_path / "a.o"
    if old is not None:
        path.write_text("an older one")
        path.chmod(old)
    give_list(tmp_path, entries)
    compilers = tmp_path / "compilers.o"
    compilers.touch(0o666)
    assert write((path, b"new"), mode=0o644) == DONE
    assert (path.read_bytes(), mode_of(path)) == (b"new", mode)
    assert (mode_of(path), list_of(path)) == (mode_of(compilers), list_of(compilers))


@pytest.mark.parametrize("keeps_mode", [False, True])
def test_an_old_objects_own_acl_is_not_the_new_ones(
    write: Write, tmp_path: Path, keeps_mode: bool
) -> None:
    path = tmp_path / "a.o"
    path.write_text("an older one")
    give_list(path, LISTS["one-more"][0], "access")
    before = list_of(path)
    assert write(OutputFile(bytes(path), b"new", keeps_mode=keeps_mode), mode=0o644) == DONE
    assert (path.read_bytes(), list_of(path)) == (b"new", before if keeps_mode else b"")


def test_a_file_that_compilers_truncate_keeps_its_mode_beside_a_default_acl(
    write: Write, tmp_path: Path
) -> None:
    path = tmp_path / "a.d"
    path.write_text("a.o: a.c")
    path.chmod(0o604)
    inode = path.stat().st_ino
    give_list(tmp_path, LISTS["closed"][0])
    assert write(OutputFile(bytes(path), b"new", keeps_mode=True), mode=0o644) == DONE
    assert (path.read_bytes(), mode_of(path), path.stat().st_ino) == (b"new", 0o604, inode)


# ---- over an old file ----


@pytest.mark.parametrize(
    "data", [b"", b"short", b"as long as it was", b"longer than the old one was"]
)
def test_an_old_file_is_overwritten_in_place(write: Write, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.o"
    path.write_bytes(b"as long as it was")
    os.utime(path, (1, 1))
    before = path.stat()
    assert write((path, data)) == DONE
    after = path.stat()
    assert path.read_bytes() == data
    assert (after.st_ino, after.st_nlink) == (before.st_ino, 1)
    # What make looks at: the file is new even if not a byte was written or changed.
    assert after.st_mtime > 1


@pytest.mark.parametrize("data", [b"", b"same"])
def test_a_file_that_was_right_already_looks_new(write: Write, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.o"
    path.write_bytes(data)
    os.utime(path, (1, 1))
    assert write((path, data)) == DONE
    assert path.stat().st_mtime > 1


@pytest.mark.parametrize("keeps_mode", [False, True])
def test_an_old_file_gets_the_mode_or_keeps_its_own(
    write: Write, tmp_path: Path, keeps_mode: bool
) -> None:
    path = tmp_path / "a.o"
    path.write_text("old")
    path.chmod(0o700)
    assert write(OutputFile(bytes(path), b"new", keeps_mode=keeps_mode), mode=0o644) == DONE
    assert mode_of(path) == (0o700 if keeps_mode else 0o644)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
@pytest.mark.parametrize("keeps_mode", [False, True])
def test_an_old_object_of_another_group_is_no_place_for_a_new_one(
    write: Write, tmp_path: Path, keeps_mode: bool
) -> None:
    path, group = tmp_path / "a.o", os.getegid() + 4321
    path.write_text("old")
    path.chmod(0o640)
    os.chown(path, -1, group)
    assert write(OutputFile(bytes(path), b"new", keeps_mode=keeps_mode), mode=0o640) == DONE
    assert (path.read_bytes(), mode_of(path)) == (b"new", 0o640)
    assert path.stat().st_gid == (group if keeps_mode else os.getegid())


# ---- what is not ours ----


def make_hard_link(path: Path) -> Path:
    other = path.with_name("other-name")
    other.write_text("kept")
    path.hardlink_to(other)
    return other


def make_link(path: Path) -> Path:
    other = path.with_name("other-name")
    other.write_text("kept")
    path.symlink_to(other.name)
    return other


def make_link_to_nothing(path: Path) -> Path:
    path.symlink_to("nothing")
    return path.with_name("nothing")


def make_directory(path: Path) -> Path:
    path.mkdir()
    (path / "kept").write_text("kept")
    return path / "kept"


def make_fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def make_socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
    return path


def make_device(path: Path) -> Path:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("may not mount or make devices here")
    return path


def make_foreign(path: Path) -> Path:
    if os.geteuid():
        pytest.skip("needs root to give a file away")
    path.write_text("kept")
    os.chown(path, 12345, -1)
    return path


OBSTACLES = {
    "hard-link": make_hard_link,
    "link": make_link,
    "dangling-link": make_link_to_nothing,
    "directory": make_directory,
    "fifo": make_fifo,
    "socket": make_socket,
    "device": make_device,
    "foreign-owner": make_foreign,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_is_not_a_plain_file_of_ours_is_left_to_the_compiler(
    write: Write, tmp_path: Path, obstacle: str
) -> None:
    path = tmp_path / "a.o"
    witness = OBSTACLES[obstacle](path)
    kept = witness.read_text() if witness.is_file() else None
    before = path.lstat()
    first, second = tmp_path / "first.d", tmp_path / "second.d"
    second.write_text("old")
    assert write((first, b"1"), (second, b"2"), (path, b"new"), (tmp_path / "z", b"3")) == NOT_OURS
    # Neither half of a result is left: what was touched before is gone, the rest never came.
    assert sorted(p.name for p in tmp_path.iterdir() if p not in {path, witness}) == []
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_size, after.st_nlink, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
        before.st_nlink,
        before.st_mtime_ns,
    )
    assert (witness.read_text() if witness.is_file() else None) == kept


def test_who_waits_at_a_fifo_is_not_woken(write: Write, tmp_path: Path) -> None:
    """A reader would take an open and a close as a compiler that wrote nothing."""
    path = tmp_path / "a.o"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        assert write((path, b"new")) == NOT_OURS
        # A writer that came and went leaves a hang-up behind.
        assert not poll.poll(0)
    finally:
        os.close(reader)


def test_the_source_under_another_name_is_never_overwritten(write: Write, tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("int x;\n")
    found = source.stat()
    assert write((source, b"object"), source=(found.st_dev, found.st_ino)) == NOT_OURS
    assert source.read_text() == "int x;\n"
    # Only both numbers together are the source's.
    assert write((source, b"object"), source=(found.st_dev + 1, found.st_ino)) == DONE
    assert write((source, b"object"), source=(found.st_dev, found.st_ino + 1)) == DONE


@pytest.mark.parametrize(
    "place", ["missing/a.o", "file/a.o", "loop/a.o", "n" * 300, "d/" * 2100 + "a"]
)
def test_where_nothing_can_be_made_the_compiler_says_so(
    write: Write, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    assert write((tmp_path / "first.d", b"1"), (tmp_path / place, b"x")) == NOT_OURS
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a place where root cannot write")
def test_a_place_where_nobody_can_write_is_left_to_the_compiler(
    write: Write, tmp_path: Path
) -> None:
    # proc(5) takes no new files, from root neither; as an old one it can be opened and not cut.
    assert write((tmp_path / "first.d", b"1"), (Path("/proc/new.o"), b"x")) == NOT_OURS
    assert not (tmp_path / "first.d").exists()


def test_a_disk_that_is_full_leaves_nothing(write: Write, tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for the disk: the write stops midway with an error."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    old = tmp_path / "old.d"
    old.write_text("old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        outcome = write((old, b"d"), (tmp_path / "a.o", b"x" * 200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert outcome == NOT_OURS
    assert list(tmp_path.iterdir()) == []


# ---- order ----


def test_outputs_are_written_in_the_order_of_the_plan(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "a.o"
    assert write((path, b"the first"), (path, b"second")) == DONE
    assert path.read_bytes() == b"second"
    # Make takes the object's time for the end of the compile: nothing comes after it.
    names = [tmp_path / n for n in ("a.d", "a.gcno", "b.o")]
    assert write(*((p, b"x" * 300_000) for p in names)) == DONE
    times = [p.stat().st_mtime_ns for p in names]
    assert times == sorted(times)


def test_an_output_may_be_one_of_the_names_that_were_checked(write: Write, tmp_path: Path) -> None:
    from hpcc.cache.replay.engine import Check, CheckKind

    path = tmp_path / "a.o"
    check = Check(CheckKind.ABSENT, bytes(path))
    assert write((path, b"x"), checks=(check,)) == DONE
    assert write((path, b"y"), checks=(check,)) == Outcome.CHANGED
    assert path.read_bytes() == b"x"
