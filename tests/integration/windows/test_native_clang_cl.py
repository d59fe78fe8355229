"""The native clang-cl under Wine, in directories as users have them: what the other tests rely on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc_testkit.windows.agent import drive_c
from hpcc_testkit.windows.native_clang import PLACES, install_clang_cl, windows_name
from hpcc_testkit.windows.wine import Wine

pytestmark = pytest.mark.timeout(300)
_SOURCE = '#include "h.h"\n#include <stddef.h>\nint f(void) { return X + (int)sizeof(size_t); }\n'


def project(wine: Wine, name: str) -> Path:
    directory = drive_c(wine) / "p" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "x.c").write_text(_SOURCE)
    (directory / "h.h").write_text("#define X 3\n")
    return directory


def compiled(wine: Wine, place: str, name: str, *more: str) -> tuple[bytes, bytes]:
    clang, directory = install_clang_cl(wine, place), project(wine, name)
    before = clang.runs
    program, *arguments = clang.argv("/nologo", "/c", "/O2", "/Brepro", *more, "x.c")
    done = wine.run(program, *arguments, cwd=directory)
    assert (done.returncode, done.stderr) == (0, b""), done
    assert clang.runs == before + 1
    return (directory / "x.obj").read_bytes(), done.stdout


def test_it_makes_the_same_object_in_every_directory(wine: Wine) -> None:
    objects = {
        compiled(wine, place, name)[0]
        for place, name in zip(PLACES, ("a b", "Jürgen", "漢字"), strict=True)
    }
    assert len(objects) == 1
    assert objects.pop().startswith(b"\x64\x86")  # an object for x86-64


def test_it_names_headers_in_utf_8(wine: Wine) -> None:
    _, out = compiled(wine, PLACES[1], "漢字", "/showIncludes")
    lines = out.decode().splitlines()
    assert lines[0] == "Note: including file: ./h.h"
    assert any("Jürgen" in line and line.endswith("stddef.h") for line in lines), lines


def test_its_short_name_starts_it_too(wine: Wine, tmp_path: Path) -> None:
    clang = install_clang_cl(wine, PLACES[0])
    (tmp_path / "s.c").write_text(
        "#include <windows.h>\n#include <stdio.h>\n"
        "int wmain(int n, wchar_t **v) { wchar_t s[999];"
        ' return n > 1 && GetShortPathNameW(v[1], s, 999) && wprintf(L"%ls", s) > 0 ? 0 : 1; }\n'
    )
    argv = ["x86_64-w64-mingw32-gcc", "-municode", "-o", tmp_path / "s.exe", tmp_path / "s.c"]
    subprocess.run(argv, check=True)
    short = wine.run(tmp_path / "s.exe", clang.program, cwd=tmp_path).stdout.decode()
    assert "~" in short
    assert " " not in short
    directory = project(wine, "short")
    before = clang.runs
    assert wine.run(short, "/nologo", "/c", "x.c", cwd=directory).returncode == 0
    assert clang.runs == before + 1
    assert windows_name(wine, directory) == "C:\\p\\short"
