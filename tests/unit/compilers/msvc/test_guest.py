r"""Arguments of cl for a guest whose root is C:\src, and flags for reproducible objects."""

from __future__ import annotations

import pytest

from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.msvc.guest import WindowsGuestMap, windows_guest_arguments
from hpcc.compilers.msvc.invocation import read_msvc_invocation
from hpcc.compilers.msvc.repro import REPRO_ROWS, reproducible_flags
from hpcc.core import parse_windows_path

SDK = parse_windows_path("C:\\Program Files\\SDK\\include")
GUEST = WindowsGuestMap(
    parse_windows_path("D:\\Repo\\proj"), parse_windows_path("D:\\Repo\\proj\\build"), SDK.__eq__
)


def invocation_of(*arguments: str, is_clang: bool = False) -> Invocation:
    found = read_msvc_invocation([a.encode() for a in arguments], is_clang=is_clang)
    assert isinstance(found, Invocation), found
    return found


def mapped(*arguments: str) -> list[str]:
    invocation = invocation_of(*arguments)
    return [a.decode() for a in windows_guest_arguments(invocation, GUEST)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/ID:\\Repo\\proj\\inc", "-IC:\\src\\inc"),
        ("/Id:/repo/PROJ/Inc", "-IC:\\src\\Inc"),
        ("/ID:\\Repo\\proj", "-IC:\\src"),
        ("/I..\\inc", "-I..\\inc"),
        ("/IC:\\Program Files\\SDK\\include", "-IC:\\Program Files\\SDK\\include"),
        ("/FID:\\Repo\\proj\\pre.h", "-FIC:\\src\\pre.h"),
        ("/Foobj\\", "-Foobj\\"),
        ("/Fo:D:\\Repo\\proj\\o\\x.obj", "-FoC:\\src\\o\\x.obj"),
        ("/FoD:\\Repo\\proj\\o/", "-FoC:\\src\\o/"),
        ("/DX=1", "/DX=1"),
        ("/O2", "/O2"),
    ],
)
def test_each_path_is_the_guests(given: str, expected: str) -> None:
    assert mapped("/c", given, "x.cpp") == ["/c", expected, "x.cpp"]


def test_the_source_is_the_guests_however_it_is_named() -> None:
    assert mapped("/c", "D:\\Repo\\proj\\x.cpp") == ["/c", "C:\\src\\x.cpp"]
    assert mapped("/c", "/TpD:\\Repo\\proj\\x") == ["/c", "-TpC:\\src\\x"]
    assert mapped("/c", "/Tc", "D:\\Repo\\proj\\x") == ["/c", "-Tc", "C:\\src\\x"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("/ID:\\Repo\\project2", "outside-root"),
        ("/I..\\..\\other", "outside-root"),
        ("/ID:\\Repo\\proj\\..\\x", "outside-root"),
        ("/I\\\\server\\share", "windows-path"),
        ("/ID:inc", "windows-path"),
        ("/I\\inc", "windows-path"),
        ("/I\\\\.\\pipe\\x", "windows-path"),
        ("/FIa.h:stream", "windows-path"),
        ('/DROOT="D:\\\\Repo\\\\proj"', "path-in-flag"),
        ("/DROOT=d:/REPO/proj", "path-in-flag"),
    ],
)
def test_what_a_guest_cannot_have_stays_here(given: str, reason: str) -> None:
    with pytest.raises(NotPortableError) as caught:
        mapped("/c", given, "x.cpp")
    assert caught.value.reason == reason


@pytest.mark.parametrize("given", ["/clang:-isystemD:\\x", "/winsysrootD:\\sdk"])
def test_what_hides_a_path_from_us_stays_here(given: str) -> None:
    read = read_msvc_invocation([b"/c", given.encode(), b"x.cpp"], is_clang=True)
    if isinstance(read, Invocation):
        with pytest.raises(NotPortableError):
            windows_guest_arguments(read, GUEST)


def added(*arguments: str, version: tuple[int, ...], is_clang: bool = False) -> tuple[bytes, ...]:
    return reproducible_flags(
        invocation_of("/c", "x.cpp", *arguments, is_clang=is_clang), version, b"C:\\src",
        is_clang=is_clang, accepts=lambda _flags: True,
    )  # fmt: skip


def test_each_version_gets_its_own_flags() -> None:
    new = added(version=(19, 38))
    old = added(version=(19, 16))
    assert new == (
        b"-Brepro", b"-experimental:deterministic", b"-pathmap:C:\\src=.", b"-wd5049",
    )  # fmt: skip
    assert old == (b"-Brepro", b"-d1trimfile:C:\\src\\")
    assert added(version=(18, 0)) == ()
    assert len(added(version=(19, 1, 7), is_clang=True)) == 4
    assert len(added("/Z7", version=(19, 1, 7), is_clang=True)) == 5
    assert len(added("/clang:-ffile-prefix-map=a=b", version=(19,), is_clang=True)) == 2
    assert added(version=(9,), is_clang=True) == (b"-Brepro",)


def test_what_the_user_decided_stays() -> None:
    assert b"-Brepro" not in added("/Brepro-", version=(19, 38))
    assert added("/Brepro", "/pathmap:a=b", version=(19, 38)) == ()
    assert added("/options:strict", version=(19, 38)) == ()


def test_only_what_the_compiler_takes_is_added() -> None:
    asked: list[tuple[bytes, ...]] = []

    def accepts(flags: tuple[bytes, ...]) -> bool:
        asked.append(flags)
        return flags == (b"-Brepro",)

    flags = reproducible_flags(
        invocation_of("/c", "x.cpp"), (19, 38), b"C:\\src", is_clang=False, accepts=accepts
    )
    assert flags == (b"-Brepro",)
    assert asked == [
        tuple(flag.replace(b"{root}", b"C:\\src") for flag in row.flags)
        for row in REPRO_ROWS
        if row.covers((19, 38), is_clang=False)
    ]


def test_a_flag_that_is_a_file_to_clang_cl_or_the_linkers_is_in_no_row() -> None:
    flags = [flag for row in REPRO_ROWS for flag in row.flags]
    assert all(flag.startswith(b"-") for flag in flags)
    assert not any(b"pdbsourcepath" in flag.lower() for flag in flags)
    assert all(row.source and row.own for row in REPRO_ROWS)
