"""Where a Windows project's root is: which markers count and which do not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from hpcc.cache.remote.windows_root import windows_root
from hpcc.core import WindowsPathError
from hpcc.windows.files import FileLook

ME, SYSTEM, STRANGER = "S-1-5-21-1-2-3-1001", "S-1-5-18", "S-1-5-21-1-2-3-1002"


def entry(owner: str = ME, *, is_directory: bool = False, is_link: bool = False) -> FileLook:
    return FileLook(is_directory=is_directory, is_link=is_link, owner=owner)


@dataclass
class FakeDisk:
    marks: dict[str, FileLook]
    texts: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def real(self, path: str) -> str:
        return self.links.get(path, path)

    def read(self, path: str, limit: int) -> bytes | None:
        return self.texts.get(path, b"")[: limit + 1]

    def root(self, cwd: str, home: str = "C:\\Users\\ann") -> str:
        return str(windows_root(self, self.marks.get, cwd.encode(), home=home, owner=ME))


def test_the_nearest_marker_names_the_root() -> None:
    disk = FakeDisk({"C:\\w\\p\\.hpcc": entry(), "C:\\w\\.hpcc": entry()})
    assert disk.root("C:\\w\\p\\a\\b") == "C:\\w\\p"
    assert disk.root("C:\\w\\q") == "C:\\w"
    assert disk.root("C:\\other") == "C:\\other"


@pytest.mark.parametrize(
    "mark", [entry(STRANGER), entry(is_link=True), entry(STRANGER, is_directory=True)]
)
def test_a_strangers_marker_and_a_link_are_none(mark: FileLook) -> None:
    disk = FakeDisk({"C:\\w\\.hpcc": mark})
    assert disk.root("C:\\w\\p") == "C:\\w\\p"


def test_a_bad_marker_ends_the_search_and_a_directory_says_nothing_more() -> None:
    disk = FakeDisk({"C:\\w\\.hpcc": entry(SYSTEM), "C:\\w\\p\\.hpcc": entry()})
    disk.texts["C:\\w\\p\\.hpcc"] = b"secret = 1"
    assert disk.root("C:\\w\\p\\a") == "C:\\w\\p\\a"
    disk.marks["C:\\w\\p\\.hpcc"] = entry(is_directory=True)
    assert disk.root("C:\\w\\p\\a") == "C:\\w\\p"


def test_the_search_ends_at_the_profile_and_before_the_drives_own_directory() -> None:
    marks = {"C:\\.hpcc": entry(SYSTEM), "C:\\Users\\.hpcc": entry(SYSTEM)}
    disk = FakeDisk(marks)
    assert disk.root("C:\\w\\p") == "C:\\w\\p"
    assert disk.root("c:\\users\\ANN\\p") == "C:\\users\\ANN\\p"
    assert disk.root("C:\\") == "C:\\"


def test_links_are_resolved_and_a_server_is_refused() -> None:
    disk = FakeDisk({}, links={"S:\\": "C:\\w\\p", "N:\\": "\\\\server\\share"})
    assert disk.root("S:\\") == "C:\\w\\p"
    with pytest.raises(WindowsPathError):
        disk.root("N:\\")
