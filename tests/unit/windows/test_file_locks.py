"""How the services open and lock files. The real Windows calls are tested under Wine."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from hpcc.files import access_of, lock_now, open_file, privacy_remedy, sync_directory
from hpcc.windows.library import CallResult, WindowsError
from hpcc.windows.open_files import LinkRefusedError, lock_handle, open_handle
from hpcc.windows.security import allowed_on_file
from hpcc_testkit.cache.launcher import ROOT

NEW = os.O_RDWR | os.O_CREAT
_HOLDER = """
import os, sys
from pathlib import Path
from hpcc.files import lock_now, open_file
lock_now(open_file(Path(sys.argv[1]), os.O_RDWR))
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_a_lock_is_had_by_one_at_a_time(path: Path) -> None:
    first, second = open_file(path, NEW), open_file(path, NEW)
    lock_now(first)
    for exclusive in (True, False):
        with pytest.raises(BlockingIOError):
            lock_now(second, exclusive=exclusive)
    os.close(first)
    lock_now(second, exclusive=False)
    third = open_file(path, os.O_RDONLY)
    lock_now(third, exclusive=False)
    with pytest.raises(BlockingIOError):
        lock_now(third)
    os.close(second)
    os.close(third)


def test_a_lock_ends_with_a_process_that_is_killed(path: Path) -> None:
    mine = open_file(path, NEW)
    argv = [sys.executable, "-c", _HOLDER, str(path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError):
            lock_now(mine)
        holder.kill()
    lock_now(mine)
    os.close(mine)


def test_what_is_made_is_its_owners_alone_and_a_link_is_not_followed(path: Path) -> None:
    made = open_file(path, NEW)
    assert access_of(made) == (True, True, True)
    assert not os.get_inheritable(made)
    path.chmod(0o640)
    assert access_of(made) == (True, True, False)
    assert privacy_remedy(path) == "chmod 600 it"
    os.close(made)
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links") as caught:
        open_file(link, os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP
    sync_directory(path.parent)


# ---- what Windows is asked, and what its answers mean ----


class Calls:
    """A `Library` whose memory is a table; `answers` are per function."""

    def __init__(self, **answers: CallResult) -> None:
        self.answers = answers
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.memory: dict[int, bytes] = {}

    def call(self, function: str, *arguments: int) -> CallResult:
        self.calls.append((function, arguments))
        return self.answers.get(function, CallResult(1, 0))

    def allocate(self, data: bytes) -> int:
        address = 0x1000 + 0x1000 * len(self.memory)
        self.memory[address] = data
        return address

    def load(self, address: int, size: int) -> bytes:
        for base, data in self.memory.items():
            if base <= address < base + max(len(data), 1):
                return data[address - base :][:size]
        return bytes(size)

    def free(self, address: int) -> None:
        return


def test_a_lock_on_windows_is_behind_every_files_end_and_does_not_wait() -> None:
    calls = Calls()
    assert lock_handle(calls, 7, exclusive=True)
    (name, (handle, flags, _, low, high, place)) = calls.calls[0]
    assert (name, handle, flags, low, high) == ("LockFileEx", 7, 3, 1, 0)
    assert struct.unpack("<QQIIQ", calls.memory[place])[3] == 0x4000_0000
    assert not lock_handle(Calls(LockFileEx=CallResult(0, 33)), 7, exclusive=False)
    with pytest.raises(WindowsError, match="LockFileEx"):
        lock_handle(Calls(LockFileEx=CallResult(0, 6)), 7, exclusive=True)


def test_a_link_on_windows_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(CreateFileW=CallResult(9, 0))
    link = struct.pack("<I3Q6I", 0x400, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    monkeypatch.setattr(calls, "load", lambda _address, size: link[:size])
    with pytest.raises(LinkRefusedError):
        open_handle(calls, "C:\\x", reads=True, writes=False, how=3, is_private=True)
    assert calls.calls[-1] == ("CloseHandle", (9,))
    pipe = Calls(CreateFileW=CallResult(9, 0), GetFileType=CallResult(3, 0))
    with pytest.raises(WindowsError, match="error 50"):
        open_handle(pipe, "C:\\x", reads=True, writes=False, how=3, is_private=True)
    assert pipe.calls[-1] == ("CloseHandle", (9,))
    with pytest.raises(WindowsError, match="error 2"):
        open_handle(
            Calls(CreateFileW=CallResult((1 << 64) - 1, 2)), "C:\\x",
            reads=True, writes=False, how=3, is_private=True,
        )  # fmt: skip


def listed(*entries: tuple[int, int], count: int | None = None) -> frozenset[str] | None:
    """Return the SIDs read from a list of (kind, flags); each entry's SID is its own address."""
    acl = struct.pack("<BxHHxx", 2, 0, len(entries) if count is None else count)
    acl += b"".join(struct.pack("<BBHI", kind, flags, 8, 1) for kind, flags in entries)
    calls = Calls(GetSecurityInfo=CallResult(0, 0))
    at = calls.allocate(acl)
    told: list[int] = []

    def load(address: int, size: int) -> bytes:
        if size == 8 and not at <= address < at + len(acl):
            return struct.pack("<Q", at)
        return Calls.load(calls, address, size)

    def call(function: str, *arguments: int) -> CallResult:
        if function == "ConvertSidToStringSidW":
            told.append(arguments[0])
        return CallResult(0, 0) if function in {"GetSecurityInfo", "lstrlenW"} else CallResult(1, 0)

    calls.load, calls.call = load, call
    found = allowed_on_file(calls, 7)
    assert all(address > at for address in told)
    return found if found is None else frozenset(str(address - at) for address in told)


def test_those_count_whom_a_list_lets_in_and_what_is_not_known_is_everyone() -> None:
    assert listed() == frozenset()
    assert listed((0, 0), (1, 0), (0, 8), (0, 16)) == {"16", "40"}
    assert listed((0, 0), (9, 0)) is None
    assert listed((0, 0), (5, 8)) is None
    assert listed(count=4000) is None
