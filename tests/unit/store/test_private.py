from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.store.file_ops import SystemFileOps
from hpcc.store.private import PrivateStore

_KEY = bytes(range(32))


class FaultyOps(SystemFileOps):
    """Fails the n-th call of one operation and notes every operation it saw."""

    def __init__(self, operation: str = "", at: int = 0, code: int = errno.EIO) -> None:
        self.seen: Counter[str] = Counter()
        self._operation, self._at, self._code = operation, at, code
        self.is_hit = False

    def _check(self, name: str) -> None:
        self.seen[name] += 1
        if name == self._operation and self.seen[name] == self._at + 1:
            self.is_hit = True
            raise OSError(self._code, os.strerror(self._code))

    def mkdir(self, path: str) -> None:
        self._check("mkdir")
        super().mkdir(path)

    def open(self, path: str, flags: int) -> int:
        self._check("open-write" if flags & os.O_CREAT else "open-read")
        return super().open(path, flags)

    def read(self, fd: int, size: int) -> bytes:
        self._check("read")
        return super().read(fd, size)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._check("write")
        # Short writes, so that a fault can come in the middle of an entry.
        return super().write(fd, bytes(data[:40]))

    def rename(self, source: str, target: str) -> None:
        self._check("rename")
        super().rename(source, target)

    def link(self, source: str, target: str) -> None:
        self._check("link")
        super().link(source, target)

    def unlink(self, path: str) -> None:
        self._check("unlink")
        super().unlink(path)

    def utime(self, path: str, at: float) -> None:
        self._check("utime")
        super().utime(path, at)


def _store(
    directory: Path,
    *,
    count: Callable[[str], None] = lambda _name: None,
    ops: SystemFileOps | None = None,
    max_size: int = 1 << 20,
    max_entry: int = 1 << 19,
) -> PrivateStore:
    return PrivateStore(
        str(directory / "s"),
        max_size_bytes=max_size,
        max_entry_bytes=max_entry,
        now=lambda: 1e9,
        count=count,
        ops=ops,
    )


def _key(number: int) -> bytes:
    return number.to_bytes(32)


def _scenario(store: PrivateStore) -> None:
    store.put(_KEY, b"old" * 30)
    store.get(_KEY)
    store.put(_KEY, b"new" * 40)
    store.touch(_KEY)
    store.flush()
    store.get(_KEY)
    store.put(_key(9), b"gone")
    store.remove(_key(9))
    store.put_all([(_key(8), b"with"), (_KEY, b"new" * 40)])


def _points() -> list[tuple[str, int]]:
    return [
        (name, at)
        for name, times in {
            "mkdir": 2,
            "open-write": 5,
            "open-read": 2,
            "read": 2,
            "write": 12,
            "rename": 5,
            "link": 1,
            "unlink": 3,
            "utime": 1,
        }.items()
        for at in range(times)
    ]


def test_every_kind_of_call_has_its_fault_points(tmp_path: Path) -> None:
    ops = FaultyOps()
    _scenario(_store(tmp_path, ops=ops))
    wanted = Counter(name for name, _ in _points())
    assert {n: min(ops.seen[n], c) for n, c in wanted.items()} == dict(wanted)
    assert set(ops.seen) == set(wanted)


@pytest.mark.parametrize(("operation", "at"), _points())
def test_after_a_fault_an_entry_is_whole_or_absent(operation: str, at: int, tmp_path: Path) -> None:
    ops = FaultyOps(operation, at)
    _scenario(_store(tmp_path, ops=ops))
    assert ops.is_hit, "the scenario does not reach this fault point"
    fresh = _store(tmp_path)
    assert fresh.get(_KEY) in {None, b"old" * 30, b"new" * 40}
    assert fresh.put(_KEY, b"after")
    assert fresh.get(_KEY) == b"after"
    assert not [p for p in (tmp_path / "s").iterdir() if p.name.startswith(".tmp")]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (errno.ENOSPC, "store.disk-full"),
        (errno.EDQUOT, "store.disk-full"),
        (errno.EIO, "store.write-error"),
    ],
)
def test_what_went_wrong_is_counted(code: int, name: str, tmp_path: Path) -> None:
    seen: list[str] = []
    store = _store(tmp_path, count=seen.append, ops=FaultyOps("write", 1, code))
    assert not store.put(_KEY, b"x" * 200)
    assert seen == [name]
    assert store.put(_KEY, b"x")


def test_entries_survive_and_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = _store(tmp_path, max_size=1000)
    for number in range(5):
        store.put(_key(number), bytes(100))
    assert store.get(_key(0)) is not None
    store.touch(_key(1))
    store.put(_key(5), bytes(400))
    assert [n for n in range(6) if store.get(_key(n)) is not None] == [0, 1, 5]
    assert store.size_bytes <= 1000


def test_the_order_of_use_outlives_the_process(tmp_path: Path) -> None:
    first = _store(tmp_path)
    for number in range(3):
        first.put(_key(number), bytes(100))
    for number in range(3):
        os.utime(next((tmp_path / "s" / "00").glob(f"*{number}")), (number, number))
    first.get(_key(0))
    first.flush()
    second = _store(tmp_path)
    assert (second.entries, second.size_bytes) == (3, first.size_bytes)
    second.trim(200)
    assert second.get(_key(0)) is not None
    assert second.get(_key(1)) is None


@pytest.mark.parametrize("data", [b"", b"x", b"hpcc-private-2\n\0" + bytes(40), bytes(500)])
def test_damaged_entries_are_removed_and_counted(data: bytes, tmp_path: Path) -> None:
    seen: list[str] = []
    store = _store(tmp_path, count=seen.append)
    store.put(_KEY, b"good")
    path = next(p for p in (tmp_path / "s").rglob("*") if p.is_file())
    path.write_bytes(data)
    assert store.get(_KEY) is None
    assert seen == ["store.corrupt"]
    assert not path.exists()
    assert store.entries == 0


def test_a_whole_entry_under_the_name_of_another_is_damage(tmp_path: Path) -> None:
    seen: list[str] = []
    store = _store(tmp_path, count=seen.append)
    store.put(_key(1), b"one")
    store.put(_key(2), b"two")
    first, second = (tmp_path / "s" / "00" / _key(n).hex()[2:] for n in (1, 2))
    first.replace(second)
    assert store.get(_key(2)) is None
    assert seen == ["store.corrupt"]


def test_a_file_that_grew_beyond_reason_is_not_read(tmp_path: Path) -> None:
    store = _store(tmp_path, max_entry=1000)
    store.put(_KEY, b"good")
    path = next(p for p in (tmp_path / "s").rglob("*") if p.is_file())
    os.truncate(path, 1 << 40)
    assert store.get(_KEY) is None


def test_a_link_in_place_of_an_entry_is_not_followed(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.put(_KEY, b"good")
    path = next(p for p in (tmp_path / "s").rglob("*") if p.is_file())
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert store.get(_KEY) is None


def test_what_a_killed_process_left_aside_is_removed(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    dead = tmp_path / "s" / ".tmp-4194999-0"
    own = tmp_path / "s" / f".tmp-{os.getpid()}-0"
    dead.write_bytes(b"half")
    own.write_bytes(b"half")
    _store(tmp_path)
    assert not dead.exists()
    assert own.exists()


def test_too_large_is_refused_and_counted(tmp_path: Path) -> None:
    seen: list[str] = []
    store = _store(tmp_path, count=seen.append, max_entry=100)
    assert not store.put(_KEY, bytes(100))
    assert seen == ["store.too-large"]


def test_entries_that_vanish_while_a_store_is_read_leave_the_others_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path)
    for number in range(3):
        store.put(bytes([number]) * 32, b"x")
    scan = os.scandir

    def scan_late(path: str) -> object:
        if path.endswith("/01"):
            (tmp_path / "s" / "01" / ("01" * 31)).unlink()
            (tmp_path / "s" / "01").rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_late)
    again = _store(tmp_path)
    assert again.entries == 2
    assert again.size_bytes == sum(p.stat().st_size for p in (tmp_path / "s").glob("??/*"))


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in (directory / "s").rglob("*") if p.is_file())


def test_small_entries_that_are_put_together_share_one_file(tmp_path: Path) -> None:
    store = _store(tmp_path)
    entries = [(_key(n), bytes([n]) * 100) for n in range(3)]
    assert store.put_all(entries) == 3
    assert len({p.stat().st_ino for p in _files(tmp_path)}) == 1
    for again in (store, _store(tmp_path)):
        assert [again.get(key) for key, _ in entries] == [payload for _, payload in entries]
        assert (again.entries, again.size_bytes) == (3, _files(tmp_path)[0].stat().st_size)


def test_a_shared_file_counts_until_its_last_entry_is_gone(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.put_all([(_key(1), bytes(100)), (_key(2), bytes(200))])
    size = store.size_bytes
    store.remove(_key(1))
    assert (store.entries, store.size_bytes) == (1, size)
    assert store.get(_key(1)) is None
    assert store.get(_key(2)) == bytes(200)
    assert store.trim(0) == size
    assert (store.entries, store.size_bytes, _files(tmp_path)) == (0, 0, [])


def test_an_entry_that_is_put_again_leaves_the_others_of_its_file(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.put_all([(_key(1), b"result"), (_key(2), b"manifest")])
    store.put_all([(_key(3), b"other result"), (_key(2), b"both")])
    found = [store.get(_key(n)) for n in (1, 2, 3)]
    assert found == [b"result", b"both", b"other result"]
    assert store.size_bytes == sum(
        {p.stat().st_ino: p.stat().st_size for p in _files(tmp_path)}.values()
    )


def test_without_second_names_each_entry_has_a_file(tmp_path: Path) -> None:
    store = _store(tmp_path, ops=FaultyOps("link", 0, errno.EPERM))
    assert store.put_all([(_key(1), b"one"), (_key(2), b"two")]) == 2
    assert len({p.stat().st_ino for p in _files(tmp_path)}) == 2
    assert [_store(tmp_path).get(_key(n)) for n in (1, 2)] == [b"one", b"two"]


def test_a_name_that_another_process_made_is_replaced(tmp_path: Path) -> None:
    store, other = _store(tmp_path), _store(tmp_path)
    other.put(_key(2), b"theirs")
    assert store.put_all([(_key(1), b"one"), (_key(2), b"ours")]) == 2
    assert [other.get(_key(n)) for n in (1, 2)] == [b"one", b"ours"]


def test_large_entries_have_separate_files_and_the_first_that_fails_ends_it(tmp_path: Path) -> None:
    seen: list[str] = []
    store = _store(tmp_path, count=seen.append, max_entry=1000)
    entries = [(_key(1), bytes(900)), (_key(2), bytes(800)), (_key(3), bytes(1000)), (_key(4), b"")]
    assert store.put_all(entries) == 2
    assert seen == ["store.too-large"]
    assert len({p.stat().st_ino for p in _files(tmp_path)}) == 2
    assert store.get(_key(4)) is None


@pytest.mark.parametrize("cut", [1, 100, 250])
def test_a_torn_file_is_damage_for_each_of_its_entries(cut: int, tmp_path: Path) -> None:
    seen: list[str] = []
    store = _store(tmp_path, count=seen.append)
    store.put_all([(_key(1), bytes(100)), (_key(2), bytes(100))])
    path = _files(tmp_path)[0]
    os.truncate(path, path.stat().st_size - cut)
    assert [store.get(_key(n)) for n in (1, 2)] == [None, None]
    assert seen == ["store.corrupt"] * 2


def test_a_file_of_too_many_records_is_damage(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.put(_key(1), b"")
    path = _files(tmp_path)[0]
    path.write_bytes(path.read_bytes() * 9)
    assert store.get(_key(1)) is None


class Other:
    """Data beside the entries, of which some is in use and stays."""

    def __init__(self, size_bytes: int, in_use: int) -> None:
        self.size_bytes, self._in_use = size_bytes, in_use

    def give_way(self, size_bytes: int) -> None:
        self.size_bytes = max(self._in_use, self.size_bytes - size_bytes)


def test_what_shares_the_limit_goes_before_entries_do(tmp_path: Path) -> None:
    store, other = _store(tmp_path, max_size=10_000), Other(5_000, in_use=2_000)
    store.share_limit_with(other)
    for number in range(7):
        assert store.put(_key(number), b"x" * 960)
    assert store.entries == 7
    assert 2_000 < other.size_bytes < 5_000
    for number in range(7, 20):
        assert store.put(_key(number), b"x" * 960)
    assert other.size_bytes == 2_000
    assert store.size_bytes + other.size_bytes <= 10_000
    assert store.get(_key(19)) is not None
    assert store.get(_key(0)) is None
