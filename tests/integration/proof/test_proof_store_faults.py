"""Every fault at every call of the private store, in a process that the fault may kill."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from hpcc.store.file_ops import FileOps
from hpcc.store.private import PrivateStore
from hpcc_testkit.cache.store_faults import CHUNK_BYTES, KILLS, Fault, FaultOps, faults_of
from hpcc_testkit.suite.sampling import every_nth

_CHILD_FOUND_A_FAULT = 7
_LIMIT = 1000
# A run takes every fourth point; see `hpcc_testkit.suite.sampling`.
_NTH = 4


def _key(number: int) -> bytes:
    return bytes([number]) * 32  # each has a different shard, and so a separate mkdir


def _open(directory: Path, ops: FaultOps | None = None) -> PrivateStore:
    return PrivateStore(
        str(directory / "store"),
        max_size_bytes=_LIMIT,
        max_entry_bytes=_LIMIT,
        now=lambda: 2e9,
        ops=ops,
    )


class _Script:
    """Calls put, get, trim and the rest, and asserts what must be true meanwhile."""

    def __init__(self, directory: Path, ops: FaultOps) -> None:
        self._directory, self._ops = directory, ops
        self._right: dict[int, set[bytes]] = {}

    def run(self) -> None:
        store = _open(self._directory, self._ops)
        self._put(store, 1, b"old" * 20)
        self._get(store, 1)
        self._put(store, 2, b"two" * 50)
        self._put(store, 1, b"new" * 40)
        self._get(store, 1)
        store.touch(_key(2))
        store.flush()
        self._get(store, 9)
        self._put(store, 3, b"three")
        store.remove(_key(3))  # stays where the disk refuses
        store.bump_epoch()
        self._damage(2)
        self._get(store, 2)
        self._put(store, 2, b"2")
        for number in (4, 5, 6, 7):
            self._put(store, number, bytes([number]) * 200)  # the last has to make room
        self._put_all(store, {8: b"eight" * 20, 9: b"nine" * 10, 1: b"new" * 20})
        store.rescan()
        for number in range(10):
            self._get(store, number)
        store.trim_unused(1e9)
        store.trim(300)
        store.flush()

    def _put(self, store: PrivateStore, number: int, payload: bytes) -> None:
        before = self._right.get(number, set())
        # Where the call says no, the older entry may be there still, or the newer one already.
        is_kept = store.put(_key(number), payload)
        self._right[number] = {payload} if is_kept else before | {payload}

    def _put_all(self, store: PrivateStore, payloads: dict[int, bytes]) -> None:
        """Put several entries at once; those beyond the answer may be older or newer ones."""
        before = {number: self._right.get(number, set()) for number in payloads}
        stored = store.put_all([(_key(number), data) for number, data in payloads.items()])
        for at, (number, data) in enumerate(payloads.items()):
            self._right[number] = {data} if at < stored else before[number] | {data}

    def _get(self, store: PrivateStore, number: int) -> None:
        found = store.get(_key(number))
        assert found is None or found in self._right.get(number, set()), (number, found)

    def _damage(self, number: int) -> None:
        name = _key(number).hex()
        path = self._directory / "store" / name[:2] / name[2:]
        if path.exists():
            path.write_bytes(path.read_bytes()[:-1])


_EVER: dict[int, set[bytes]] = {
    1: {b"old" * 20, b"new" * 40, b"new" * 20},
    2: {b"two" * 50, b"2"},
    3: {b"three"},
    **{number: {bytes([number]) * 200} for number in (4, 5, 6, 7)},
    8: {b"eight" * 20},
    9: {b"nine" * 10},
}


def _calls(directory: Path) -> list[str]:
    """Return the fault points: the calls that the script makes without a fault."""
    ops = FaultOps()
    _Script(directory, ops).run()
    return ops.calls


def _run_child(directory: Path, at: int, fault: Fault) -> tuple[bool, int]:
    """Run the script with one fault; return whether the point was reached, and the status."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = _CHILD_FOUND_A_FAULT
        try:
            ops = FaultOps(at, fault, on_hit=lambda: os.write(writer, b"!") and None)
            _Script(directory, ops).run()
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    was_hit = os.read(reader, 1) == b"!"
    os.close(reader)
    _, status = os.waitpid(child, 0)
    return was_hit, status


def _bytes_of(files: list[Path]) -> int:
    """Return what the files take; one with several names takes it once."""
    return sum({p.stat().st_ino: p.stat().st_size for p in files}.values())


def _check_left_overs(directory: Path) -> None:
    store = _open(directory)
    root = directory / "store"
    files = [p for p in root.glob("??/*") if p.is_file()] if root.exists() else []
    assert not list(root.glob(".tmp-*")), "a left-over was not swept"
    assert {p.parent.name + p.name for p in files} <= {_key(n).hex() for n in _EVER}
    assert (store.entries, store.size_bytes) == (len(files), _bytes_of(files))
    for number in range(10):
        found = store.get(_key(number))
        assert found is None or found in _EVER.get(number, set()), (number, found)
    files = [p for p in root.glob("??/*") if p.is_file()]
    assert store.size_bytes == _bytes_of(files)
    assert store.put(_key(1), b"after")
    assert store.size_bytes <= _LIMIT
    again = _open(directory)
    assert again.get(_key(1)) == b"after"
    assert (again.entries, again.size_bytes) == (store.entries, store.size_bytes)


def test_the_script_reaches_every_call_of_the_port_and_both_ends_of_a_long_write(
    tmp_path: Path,
) -> None:
    calls = Counter(_calls(tmp_path))
    port = {name for name in vars(FileOps) if not name.startswith("_")}
    assert set(calls) == port
    assert calls["write"] > 2 * calls["rename"], "entries must take several writes"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", Fault, ids=lambda f: f.value)
def test_at_every_point_what_is_read_is_whole_and_right_or_missing(
    fault: Fault, tmp_path: Path
) -> None:
    calls = _calls(tmp_path / "plain")
    points = [at for at, name in enumerate(calls) if fault in faults_of(name)]
    assert points
    missed = []
    for at in every_nth(points, _NTH):
        directory = tmp_path / "faulty"
        was_hit, status = _run_child(directory, at, fault)
        expected = signal.SIGKILL if fault in KILLS else 0
        assert status == expected, f"{calls[at]}, call {at}: ended with {status:#x}"
        if not was_hit:
            missed.append((at, calls[at]))
        _check_left_overs(directory)
        shutil.rmtree(directory)
    assert not missed, "fault points that were not reached"


def test_a_store_that_wrote_in_place_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative case: without a temporary name, a kill between two writes tears an entry."""

    def write_in_place(self: PrivateStore, path: str, data: bytes) -> None:
        self._ops.mkdir(os.path.dirname(path))
        fd = self._ops.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        view = memoryview(data)
        while view:
            view = view[self._ops.write(fd, view) :]
        os.close(fd)

    monkeypatch.setattr(PrivateStore, "_write", write_in_place)
    torn = 0
    for at, name in enumerate(_calls(tmp_path / "plain")):
        if name == "write":
            directory = tmp_path / "faulty"
            _run_child(directory, at, Fault.KILL_BEFORE)
            torn += any(
                _open(directory).get(bytes.fromhex(p.parent.name + p.name)) is None
                for p in (directory / "store").glob("??/*")
            )
            shutil.rmtree(directory)
    assert torn, f"no entry of more than {CHUNK_BYTES} bytes was torn"
