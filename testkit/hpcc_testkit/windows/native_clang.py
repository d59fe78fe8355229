"""A real clang-cl for Windows under Wine, where users install it and keep their sources.

`tools/bootstrap.sh windows-clang` fetches the compiler; `install_clang_cl` puts it into a prefix.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc_testkit.windows.agent import drive_c, windows_python
from hpcc_testkit.windows.wine import Wine, cross_build

_PROGRAM: Final = Path(__file__).with_name("clang_cl.c")
_STARTER: Final = Path(__file__).with_name("starter.c")
# Names that users have: a space and an 8.3 alias, a letter outside of ASCII, none inside.
PLACES: Final = ("Program Files/LLVM", "users/Jürgen/LLVM", "漢字")


def windows_clang() -> Path:
    """Return where `tools/bootstrap.sh windows-clang` puts the compiler."""
    return windows_python().with_name("windows-clang-22")


@dataclass(frozen=True, slots=True)
class NativeClangCl:
    r"""A clang-cl below `C:\`. `directory` is its place as this machine sees it."""

    wine: Wine
    directory: Path

    @property
    def program(self) -> str:
        """The compiler's path in the form of Windows."""
        return windows_name(self.wine, self.directory / "clang-cl.exe")

    @property
    def runs(self) -> int:
        """How often it was started."""
        counted = self.directory / "clang-cl.runs"
        return counted.stat().st_size if counted.exists() else 0

    def argv(self, *arguments: str) -> Sequence[str]:
        return self.program, *arguments


def windows_name(wine: Wine, path: Path) -> str:
    r"""Return the path below `C:\` of a file in the prefix."""
    return "C:\\" + str(path.relative_to(drive_c(wine))).replace("/", "\\")


def install_clang_cl(wine: Wine, place: str, more: str = "") -> NativeClangCl:
    r"""Put the compiler and the program of the tests into a directory below `C:\`.

    `more` are flags of every compile, so that two installations differ.
    """
    assert windows_clang().is_dir(), "no clang for Windows: tools/bootstrap.sh windows-clang"
    directory = drive_c(wine) / place / "bin"
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "clang-cl.exe").exists():
        # clang names its directory without links of Unix. A further hard link changes the time of
        # change, which is in every key: another test run would see another compiler.
        shutil.copyfile(windows_clang() / "zig.exe", directory / "zig.exe")
        os.symlink(windows_clang() / "lib", directory / "lib")
        cross_build(_PROGRAM, directory / "clang-cl.exe", f'-DMORE=L"{more}"')
    return NativeClangCl(wine, directory)


def install_starter(wine: Wine, place: str, target: str, *, has_text: bool) -> NativeClangCl:
    r"""Put a program that starts the compiler at `target` into a directory below `C:\`.

    `has_text`: the path is in a text beside the starter, as scoop does it; else inside of it.
    """
    directory = drive_c(wine) / place
    directory.mkdir(parents=True, exist_ok=True)
    spelled = target.replace("\\", "\\\\")
    cross_build(_STARTER, directory / "clang-cl.exe", f'-DTARGET=L"{"" if has_text else spelled}"')
    if has_text:
        (directory / "clang-cl.shim").write_text(f'path = "{target}"\r\n')
    return NativeClangCl(wine, directory)
