"""What the dynamic loader's variables mean for the cache, and what the loader itself reports."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.host.identity import Compilers, Identity
from hpcc.cache.host.loader import libraries_of, loader_environment, refusal_of_loader
from hpcc.cache.replay.engine import open_engine
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason


@pytest.mark.parametrize(
    ("name", "value", "is_refused"),
    [
        ("LD_AUDIT", "/x.so", True),
        ("LD_AUDIT", "", False),
        ("LD_DEBUG", "libs", True),
        ("LD_TRACE_LOADED_OBJECTS", "", True),
        ("LD_SHOW_AUXV", "", True),
        ("GCONV_PATH", "/x", True),
        ("GCONV_PATH", "", False),
        ("LD_LIBRARY_PATH", "/x", False),
        ("GLIBC_TUNABLES", "glibc.malloc.check=1", False),
        ("LD_PRELOAD", "", False),
        ("LD_PRELOAD", "/home/me/libown.so", True),
        ("LD_PRELOAD", "libfaketime.so.1", True),
        ("LD_PRELOAD", "libfakeroot-sysv.so", False),
        ("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/libfakeroot/libfakeroot-sysv.so", False),
        ("LD_PRELOAD", "libeatmydata.so libjemalloc.so.2:", False),
        ("LD_PRELOAD", "libjemalloc.so.2 /tmp/other.so", True),
        ("LD_PRELOAD", "/tmp/libjemalloc.so.2", True),
        ("LD_PRELOAD", "./libjemalloc.so.2", True),
        ("LD_PRELOAD", "/usr/lib/../../tmp/libjemalloc.so.2", True),
        ("LD_PRELOAD", "$ORIGIN/libjemalloc.so.2", True),
    ],
)
def test_foreign_code_and_talk_are_refused(name: str, value: str, is_refused: bool) -> None:
    found = refusal_of_loader({os.fsencode(name): os.fsencode(value)})
    assert found == (Bypass(BypassReason.LOADER) if is_refused else None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("/a:/b", "/a:/b"),
        ("/a:", "/a:/cwd/"),
        (":/a", "/cwd/:/a"),
        ("lib;/a", "/cwd/lib;/a"),
        ("$ORIGIN/../lib:x", "$ORIGIN/../lib:/cwd/x"),
    ],
)
def test_relative_parts_are_those_of_the_working_directory(value: str, expected: str) -> None:
    env = loader_environment({b"LD_LIBRARY_PATH": os.fsencode(value)}, b"/cwd")
    assert env == {b"LD_LIBRARY_PATH": os.fsencode(expected)}
    assert loader_environment({}, b"/cwd") == {}


def _program(directory: Path) -> Path:
    """Build a program and its library, which the loader finds by LD_LIBRARY_PATH."""
    (directory / "own.c").write_text("int own(void) { return 0; }\n")
    (directory / "main.c").write_text("int own(void);\nint main(void) { return own(); }\n")
    (directory / "lib").mkdir()
    for command in (
        "gcc -shared -fPIC own.c -Wl,-soname,libown.so.1 -o lib/libown.so.1",
        "gcc main.c lib/libown.so.1 -o program",
    ):
        subprocess.run(command.split(), cwd=directory, check=True, capture_output=True)
    return directory / "program"


def test_the_loader_lists_what_it_loads_and_what_it_tried(tmp_path: Path) -> None:
    program = os.fsencode(_program(tmp_path))
    root = os.fsencode(tmp_path)
    (tmp_path / "empty").mkdir()
    path = root + b"/none:" + root + b"/empty:" + root + b"/lib"
    found = libraries_of(program, {b"LD_LIBRARY_PATH": path, b"PATH": b"/usr/bin:/bin"})
    assert root + b"/lib/libown.so.1" in found.loaded
    assert {root + b"/none", root + b"/empty/libown.so.1"} <= {*found.tried}
    assert not any(map(os.path.lexists, found.tried))


def test_a_library_that_appears_or_changes_is_another_compiler(tmp_path: Path) -> None:
    compiler = os.fsencode(os.path.realpath(shutil.which("gcc") or "/usr/bin/gcc"))
    # Every file counts as old, so that the answer is one that is remembered.
    compilers = Compilers(FileMemo(lambda: 1 << 62), open_engine())
    (tmp_path / "lib").mkdir()
    env = {
        b"PATH": b"/usr/bin:/bin",
        b"LD_LIBRARY_PATH": os.fsencode(tmp_path / "lib"),
    }

    def identity() -> Identity:
        found = compilers.identify(compiler, env, lambda: False)
        assert isinstance(found, Identity)
        return found

    before = identity()
    assert identity() is before
    real = next(
        path
        for path in libraries_of(compiler, env).loaded
        if path.rpartition(b"/")[2].startswith(b"libc.so")
    )
    shutil.copy(os.fsdecode(real), tmp_path / "lib" / os.fsdecode(real.rpartition(b"/")[2]))
    after = identity()
    assert after.digest != before.digest
    shutil.rmtree(tmp_path / "lib")
    assert identity().digest == before.digest


def test_a_relative_library_path_is_another_one_in_each_directory(tmp_path: Path) -> None:
    compiler = os.fsencode(os.path.realpath(shutil.which("gcc") or "/usr/bin/gcc"))
    compilers = Compilers(FileMemo(lambda: 1 << 62), open_engine())
    env = {b"PATH": b"/usr/bin:/bin", b"LD_LIBRARY_PATH": b"/none:"}
    (real,) = (p for p in libraries_of(compiler, env).loaded if b"/libc.so" in p)
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    shutil.copy(os.fsdecode(real), tmp_path / "two" / os.fsdecode(real.rpartition(b"/")[2]))
    for name in ("one", "two"):
        answer = compilers.identify(compiler, env, lambda: False, os.fsencode(tmp_path / name))
        assert isinstance(answer, Identity)
        found.append(answer.digest)
    assert found[0] != found[1]
