"""Which files tell one compiler from another, and starters."""

from __future__ import annotations

import pytest

from hpcc.cache.windows.programs import (
    StarterError,
    has_libraries,
    is_installed_in,
    programs_of,
    state_of,
)
from hpcc_testkit.windows.memory_disk import MemoryDisk

STARTER, TEXT = "C:\\shims\\clang-cl.exe", "C:\\shims\\clang-cl.shim"
CURRENT = "C:\\apps\\current\\bin\\clang-cl.exe"


class LinkedDisk(MemoryDisk):
    """A disk on which `current` leads to a directory of one version."""

    version = "1"

    def real(self, path: str) -> str:
        return path.replace("\\current\\", f"\\{self.version}\\")


def scoop(text: str = f'path = "{CURRENT}"\r\n') -> LinkedDisk:
    disk = LinkedDisk(now=10**18)
    disk.put(STARTER, b"starter")
    disk.put(TEXT, text.encode())
    for directory in ("current", "1", "2"):
        disk.put(f"C:\\apps\\{directory}\\bin\\clang-cl.exe", b"program")
    return disk


@pytest.mark.parametrize("text", ['path = "{}"\r\n', "path = {}\n", "path={}"])
def test_the_program_of_a_starter_counts(text: str) -> None:
    disk = scoop(text.format(CURRENT))
    found = programs_of(disk, STARTER)
    assert {STARTER, TEXT, "C:\\apps\\1\\bin\\clang-cl.exe"} <= set(found)
    assert is_installed_in(disk, STARTER, "C:/apps/current/bin")
    assert not is_installed_in(disk, STARTER, "C:\\shims")
    first = state_of(disk, STARTER)
    disk.version = "2"
    assert state_of(disk, STARTER) != first
    assert not is_installed_in(disk, STARTER, "C:\\apps\\1\\bin")
    disk.version = "1"
    assert state_of(disk, STARTER) == first
    disk.put("C:\\apps\\1\\bin\\clang-cl.exe", b"program", at=10**18 + 1)
    assert state_of(disk, STARTER) != first


@pytest.mark.parametrize(
    "text",
    [
        "", "path = ", "path = clang-cl.exe", f"path = {CURRENT}\r\nargs = /O1\r\n",
        "path = %LLVM%\\clang-cl.exe", f"path = {STARTER}", "path = C:\\missing.exe",
        "path = \\\\server\\x\\clang-cl.exe", "path = \xff", "path = C:\\apps\\1",
    ],
)  # fmt: skip
def test_a_text_with_more_than_a_path_is_refused(text: str) -> None:
    disk = scoop()
    disk.put(TEXT, text.encode("latin-1"))
    with pytest.raises(StarterError):
        programs_of(disk, STARTER)
    assert state_of(disk, STARTER) is None


def test_a_starter_of_a_starter_is_refused() -> None:
    disk = scoop()
    disk.put("C:\\apps\\1\\bin\\clang-cl.shim", b"path = C:\\x\\clang-cl.exe")
    with pytest.raises(StarterError):
        programs_of(disk, STARTER)


def test_cl_has_its_libraries_beside_it() -> None:
    disk = MemoryDisk()
    for name, expected in (("cl.exe", False), ("c2.dll", False), ("C1XX.dll", True)):
        disk.put(f"C:\\VC\\{name}")
        assert has_libraries(disk, "C:\\VC\\cl.exe") is expected


@pytest.mark.parametrize("told", ["", "relative", "\\\\server\\x", "C:\\w\\..\\.."])
def test_a_directory_that_is_no_path_is_not_the_compilers(told: str) -> None:
    disk = MemoryDisk()
    disk.put("C:\\w\\clang-cl.exe")
    assert not is_installed_in(disk, "C:\\w\\clang-cl.exe", told)
    assert is_installed_in(disk, "C:\\w\\clang-cl.exe", "c:/W")
