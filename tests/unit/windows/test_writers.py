"""Who may change what a service runs: lists of a system that answers as this test says."""

from __future__ import annotations

import struct

import pytest

from hpcc.core import CallerError
from hpcc.windows.library import INVALID_HANDLE, CallResult
from hpcc.windows.writers import check_programs

SYSTEM, ADMINISTRATORS, USERS = "S-1-5-18", "S-1-5-32-544", "S-1-5-32-545"
FULL, READ, ADD, APPEND, DELETE_CHILD, WRITE_DAC = 0x1F01FF, 0x1200A9, 0x2, 0x4, 0x40, 0x40000
PROGRAM = "C:\\Program Files\\hpcc\\python.exe"
PLACES = ("C:\\", "C:\\Program Files", "C:\\Program Files\\hpcc", PROGRAM)


class System:
    """A `Library` with one access list for each path: entries of SID, rights and flags."""

    def __init__(self) -> None:
        self.lists: dict[str, list[tuple[str, int, int]] | None] = {}
        self.owners: dict[str, str] = {}
        self.memory: dict[int, bytes] = {}
        self.opened: list[str] = []
        self.closed = 0
        for path in PLACES:
            self.lists[path] = [(SYSTEM, FULL, 0), (ADMINISTRATORS, FULL, 0), (USERS, READ, 0)]

    def call(self, function: str, *arguments: int) -> CallResult:
        return getattr(self, function)(*arguments)  # type: ignore[no-any-return]  # one of those below

    def allocate(self, data: bytes) -> int:
        address = 1 << 20 | len(self.memory) << 12
        self.memory[address] = data
        return address

    def load(self, address: int, size: int) -> bytes:
        start = max(a for a in self.memory if a <= address)
        return self.memory[start][address - start :][:size].ljust(size, b"\0")

    def free(self, address: int) -> None:
        del address

    def CreateFileW(self, name: int, *_: int) -> CallResult:  # noqa: N802 - the system's name
        path = self.memory[name].decode("utf-16-le").rstrip("\0")
        if path not in self.lists:
            return CallResult(INVALID_HANDLE, 2)
        self.opened.append(path)
        return CallResult(len(self.opened), 0)

    def GetSecurityInfo(self, handle: int, _kind: int, what: int, *out: int) -> CallResult:  # noqa: N802 - as above
        path = self.opened[handle - 1]
        if what == 1:
            found = self.allocate(self.owners.get(path, ADMINISTRATORS).encode().ljust(100, b"\0"))
            self.memory[out[0]] = struct.pack("<Q", found)
            return CallResult(0, 0)
        entries = self.lists[path]
        found = 0
        if entries is not None:
            data = struct.pack("<BxHHxx", 2, 0, len(entries))
            for sid, mask, flags in entries:
                data += struct.pack("<BBHI", 0, flags, 108, mask) + sid.encode().ljust(100, b"\0")
            found = self.allocate(data)
        self.memory[out[2]] = struct.pack("<Q", found)
        return CallResult(0, 0)

    def ConvertSidToStringSidW(self, sid: int, out: int) -> CallResult:  # noqa: N802 - as above
        text = self.load(sid, 100).rstrip(b"\0").decode()
        self.memory[out] = struct.pack("<Q", self.allocate(text.encode("utf-16-le") + b"\0\0"))
        return CallResult(1, 0)

    def lstrlenW(self, text: int) -> CallResult:  # noqa: N802 - as above
        return CallResult(len(self.memory[text]) // 2 - 1, 0)

    def LocalFree(self, _: int) -> CallResult:  # noqa: N802 - as above
        return CallResult(0, 0)

    def CloseHandle(self, _: int) -> CallResult:  # noqa: N802 - as above
        self.closed += 1
        return CallResult(1, 0)


def refused(system: System) -> str:
    with pytest.raises(CallerError) as caught:
        check_programs(system, [PROGRAM])
    assert caught.value.reason == "service-writable"
    assert system.closed == len(system.opened)
    return str(caught.value)


def test_an_installation_that_only_administrators_may_change_is_fine() -> None:
    system = System()
    # Any user may create directories in a drive, and what they create is theirs.
    system.lists["C:\\"] = [(SYSTEM, FULL, 0), (USERS, APPEND, 0), (USERS, FULL, 8)]
    check_programs(system, [PROGRAM])
    assert sorted(system.opened) == sorted(PLACES)
    assert system.closed == len(PLACES)


@pytest.mark.parametrize(
    ("place", "rights"),
    [
        (PROGRAM, ADD), (PROGRAM, WRITE_DAC), (PLACES[2], DELETE_CHILD), (PLACES[1], WRITE_DAC),
        (PLACES[0], DELETE_CHILD), (PLACES[1], 0x10000), (PLACES[1], 0x10000000),
    ],
)  # fmt: skip
def test_a_place_that_a_user_may_change_or_replace_is_refused(place: str, rights: int) -> None:
    system = System()
    entries = system.lists[place]
    assert entries is not None
    entries.append((USERS, rights, 0))
    said = refused(system)
    assert said.startswith(f"{place} can be changed by {USERS}")
    assert "Program Files" in said


def test_a_directory_of_modules_must_not_take_new_files() -> None:
    system = System()
    entries = system.lists[PLACES[2]]
    assert entries is not None
    entries.append((USERS, ADD, 0))
    check_programs(system, [PROGRAM])
    with pytest.raises(CallerError):
        check_programs(system, [PROGRAM, PLACES[2]])


def test_an_owner_may_change_the_list_and_no_list_is_everyones() -> None:
    system = System()
    system.owners[PLACES[2]] = "S-1-5-21-1-2-3-1001"
    assert "S-1-5-21-1-2-3-1001" in refused(system)
    system = System()
    system.lists[PROGRAM] = None
    assert "everyone" in refused(system)
    system = System()
    del system.lists[PROGRAM]
    assert "cannot be checked" in refused(system)
