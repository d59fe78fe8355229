"""A hostile clone: huge, endless, circular or odd files where git keeps its own."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from hpcc.cache.git import objects, reading
from hpcc.cache.git.delta import MAX_OBJECT_BYTES, apply_delta, size_at
from hpcc.cache.git.objects import Commits
from hpcc.cache.git.reading import GitError
from hpcc.cache.git.refs import Repository, find_repository, read_head

_COMMIT: Final = b"tree " + b"1" * 40 + b"\nparent " + b"2" * 40 + b"\n\n"
_NAME: Final = bytes.fromhex("ab" * 20)
_MOST_BYTES: Final = 24 << 20


@contextmanager
def little_memory() -> Iterator[None]:
    """Check that the block never holds more than a few objects at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < _MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in (".git/refs/heads", ".git/objects/pack", ".git/objects/info"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    return tmp_path


def head(clone: Path) -> bytes:
    repository = find_repository(os.fsencode(clone))
    assert repository is not None
    return read_head(repository)


def parents(clone: Path, name: bytes = _NAME) -> tuple[bytes, ...]:
    with Commits(Repository(*[os.fsencode(clone / ".git")] * 2)) as commits:
        return commits.parents(name.hex().encode())


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def entry(kind: int, content: bytes, *, size: int = -1, between: bytes = b"") -> bytes:
    """Return one entry of a pack; `size` is what it announces."""
    size = len(content) if size < 0 else size
    first, rest = size & 15 | kind << 4, size >> 4
    head = bytes([first | 0x80]) + varint(rest) if rest else bytes([first])
    return head + between + zlib.compress(content)


def write_pack(
    clone: Path, objects: dict[bytes, bytes], *, offsets: dict[bytes, int] | None = None
) -> None:
    """Write a pack with these entries by name, and its index; `offsets` are lies of the index."""
    pack, places = b"PACK" + struct.pack(">II", 2, len(objects)), {}
    for name, data in objects.items():
        places[name] = len(pack)
        pack += data
    places |= offsets or {}
    names = sorted(objects)
    fanout = [sum(name[0] <= first for name in names) for first in range(256)]
    index = b"\xfftOc" + struct.pack(">I256I", 2, *fanout) + b"".join(names)
    index += bytes(4 * len(names)) + b"".join(struct.pack(">I", places[name]) for name in names)
    base = clone / ".git/objects/pack/pack-1"
    base.with_suffix(".pack").write_bytes(pack)
    base.with_suffix(".idx").write_bytes(index)


def test_the_parts_of_this_test_make_a_pack_that_is_read(clone: Path) -> None:
    write_pack(clone, {_NAME: entry(1, _COMMIT)})
    assert parents(clone) == (b"2" * 40,)


def test_a_head_that_names_itself_ends(clone: Path) -> None:
    (clone / ".git/refs/heads/main").write_text("ref: refs/heads/main\n")
    with pytest.raises(GitError, match="too many names"):
        head(clone)


@pytest.mark.parametrize(
    "name",
    ["refs/../../../etc/passwd", "refs/heads/../x", "refs//x", "refs/.x", "/etc/passwd", "refs/a b",
     "refs/heads/x\x1b[2J", "refs/" + "x" * 600],
)  # fmt: skip
def test_a_head_that_leads_out_of_the_repository_is_refused(clone: Path, name: str) -> None:
    (clone / ".git/HEAD").write_text(f"ref: {name}\n")
    with pytest.raises(GitError, match="form that is not read"):
        head(clone)


@pytest.mark.parametrize("name", [".git/HEAD", ".git/packed-refs", ".git/commondir"])
def test_a_pipe_does_not_block(clone: Path, name: str) -> None:
    (clone / name).unlink(missing_ok=True)
    os.mkfifo(clone / name)
    with pytest.raises(GitError):
        head(clone)


@pytest.mark.parametrize("name", [".git/HEAD", ".git/packed-refs", ".git/commondir"])
def test_a_link_is_not_followed(clone: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").write_text("1" * 40)
    (clone / name).unlink(missing_ok=True)
    (clone / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GitError):
        head(clone)


@pytest.mark.parametrize("name", [".git/HEAD", ".git/packed-refs", ".git/refs/heads/main"])
def test_a_huge_file_is_not_read(clone: Path, name: str) -> None:
    with (clone / name).open("wb") as file:
        file.truncate(1 << 40)
    with little_memory(), pytest.raises(GitError, match="larger than"):
        head(clone)


def test_a_git_directory_that_is_a_link_is_refused(clone: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / ".git").symlink_to(clone / ".git")
    with pytest.raises(GitError):
        find_repository(os.fsencode(other))


@pytest.mark.parametrize(
    "text", ["", "gitdir: ", "gitdir: a\0b", "x" * 5000, "gitdir: a\ngitdir: b"]
)
def test_an_odd_git_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / ".git").write_text(text)
    with pytest.raises(GitError):
        find_repository(os.fsencode(tmp_path))


def test_a_git_file_that_leads_in_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: .git\n")
    with pytest.raises(GitError, match="HEAD names no commit"):
        head(tmp_path)


def test_a_loose_bomb_is_inflated_to_a_limit(clone: Path) -> None:
    directory = clone / f".git/objects/{_NAME.hex()[:2]}"
    directory.mkdir()
    packer = zlib.compressobj()
    bomb = packer.compress(b"commit 1\0" + _COMMIT)
    bomb += b"".join(packer.compress(bytes(1 << 20)) for _ in range(40)) + packer.flush()
    (directory / _NAME.hex()[2:]).write_bytes(bomb)
    with little_memory():
        assert parents(clone) == (b"2" * 40,)


def test_a_packed_bomb_is_refused_by_what_it_announces(clone: Path) -> None:
    content = _COMMIT + bytes(32 << 20)
    write_pack(clone, {_NAME: entry(1, content)})
    del content
    with little_memory(), pytest.raises(GitError, match="too large"):
        parents(clone)


def test_a_packed_bomb_that_announces_little_is_refused(clone: Path) -> None:
    write_pack(clone, {_NAME: entry(1, bytes(32 << 20), size=100)})
    with little_memory(), pytest.raises(GitError, match="not a commit"):
        parents(clone)


@pytest.mark.parametrize("size", [0, 1, 19])
def test_a_base_whose_name_is_cut_by_the_end_of_the_pack_is_refused(clone: Path, size: int) -> None:
    write_pack(clone, {_NAME: bytes([7 << 4 | 5]) + _NAME[:size]})
    with pytest.raises(GitError, match="beyond the end of its pack"):
        parents(clone)


def test_blocks_that_make_nothing_are_not_read_to_the_end(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = b"\x78\x9c" + b"\0\0\0\xff\xff" * 200_000
    write_pack(clone, {_NAME: bytes([1 << 4 | 5]) + blocks})
    read: list[int] = []
    at = reading.read_at

    def counted(fd: int, size: int, offset: int) -> bytes:
        data = at(fd, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(objects, "read_at", counted)
    with pytest.raises(GitError, match="damaged"):
        parents(clone)
    assert sum(read) < 100_000


def test_a_delta_bomb_makes_no_more_than_its_limit() -> None:
    """Seven bytes copy up to 16 MiB."""
    base = bytes(MAX_OBJECT_BYTES)
    copy = bytes([0x80 | 0x70, 0, 0, 0x10])  # 1 MiB from the start
    for size in (MAX_OBJECT_BYTES, 1 << 40):
        with little_memory(), pytest.raises(GitError):
            apply_delta(base, varint(len(base)) + varint(size) + copy * 10_000)


def test_a_delta_of_itself_ends(clone: Path) -> None:
    write_pack(clone, {_NAME: entry(7, varint(1) + varint(1) + b"\x01a", between=_NAME)})
    with pytest.raises(GitError, match="chain of deltas"):
        parents(clone)


def test_a_long_chain_of_deltas_ends(clone: Path) -> None:
    names = [bytes([n]) * 20 for n in range(100)]
    delta = varint(len(_COMMIT)) + varint(len(_COMMIT)) + bytes([0x90, len(_COMMIT)])
    objects = {n: entry(7, delta, between=base) for n, base in pairwise(names)}
    write_pack(clone, {**objects, names[-1]: entry(1, _COMMIT)})
    assert parents(clone, names[60]) == (b"2" * 40,)
    with pytest.raises(GitError, match="chain of deltas"):
        parents(clone, names[0])


@pytest.mark.parametrize("back", [b"\x00", b"\x7f", b"\xff" * 12])
def test_a_delta_whose_base_is_elsewhere_is_refused(clone: Path, back: bytes) -> None:
    write_pack(clone, {_NAME: entry(6, varint(1) + varint(1) + b"\x01a", between=back)})
    with pytest.raises(GitError):
        parents(clone)


@pytest.mark.parametrize("offset", [0, 5, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_an_index_that_lies_about_an_offset_is_refused(clone: Path, offset: int) -> None:
    write_pack(clone, {_NAME: entry(1, _COMMIT)}, offsets={_NAME: offset})
    with pytest.raises(GitError):
        parents(clone)


@pytest.mark.parametrize(
    "fanout", [[5] * 255 + [1], [0xFFFFFFFF] * 256, [0] * 171 + [1 << 31] * 85]
)
def test_an_index_that_lies_about_its_names_finds_nothing(clone: Path, fanout: list[int]) -> None:
    write_pack(clone, {_NAME: entry(1, _COMMIT)})
    index = clone / ".git/objects/pack/pack-1.idx"
    data = index.read_bytes()
    index.write_bytes(data[:8] + struct.pack(">256I", *fanout) + data[8 + 1024 :])
    with little_memory():
        assert parents(clone) == ()


def test_thousands_of_packs_are_not_all_opened(clone: Path) -> None:
    directory = clone / ".git/objects/pack"
    for number in range(600):
        (directory / f"pack-{number}.idx").write_bytes(b"\xfftOc\0\0\0\2" + bytes(1024))
        (directory / f"pack-{number}.pack").touch()
    before = len(os.listdir("/proc/self/fd"))
    with Commits(Repository(*[os.fsencode(clone / ".git")] * 2)) as commits:
        assert commits.parents(_NAME.hex().encode()) == ()
        assert len(os.listdir("/proc/self/fd")) - before <= 512
    assert len(os.listdir("/proc/self/fd")) == before


def test_alternates_that_name_each_other_are_read_once(clone: Path) -> None:
    (clone / ".git/objects/info/alternates").write_text(f"{clone}/.git/objects\n" * 500)
    assert parents(clone) == ()


def test_a_commit_with_a_thousand_parents_has_a_few(clone: Path) -> None:
    lines = b"".join(b"parent %040x\n" % n for n in range(1000))
    write_pack(clone, {_NAME: entry(1, b"tree " + b"1" * 40 + b"\n" + lines + b"\n")})
    assert 0 < len(parents(clone)) <= 64


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, b"\x80"])
def test_a_size_without_an_end_is_refused(data: bytes) -> None:
    with pytest.raises(GitError):
        size_at(data, 0)


def test_a_tree_is_no_commit(clone: Path) -> None:
    write_pack(clone, {_NAME: entry(2, _COMMIT)})
    with pytest.raises(GitError, match="not a commit"):
        parents(clone)
