"""What the dynamic loader's variables mean for the cache, and what the loader itself reports."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo, signature_of
from hpcc.cache.host.compiler_probe import Identity
from hpcc.cache.host.identity import Compilers
from hpcc.cache.host.loader import (
    Skipped,
    has_impostor,
    libraries_of,
    loader_environment,
    look_at_skipped,
    refusal_of_loader,
)
from hpcc.cache.replay.engine import Check, CheckKind, Engine, Outcome, Plan, open_engine
from hpcc.cache.replay.python_engine import PythonEngine
from hpcc.cache.replay.replay import NotPinnedError, Pins
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
        ("HEAPPROFILE", "/tmp/x", True),
        ("HEAPCHECK", "normal", True),
        ("CPUPROFILE", "/tmp/x", True),
        ("MALLOCSTATS", "1", True),
        ("MALLOCSTATS", "", False),
        ("MALLOC_CONF", "stats_print:true", False),  # no library is preloaded
        ("MALLOC_PERTURB_", "77", False),
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
    "name",
    ["MALLOC_CONF", "MIMALLOC_VERBOSE", "TCMALLOC_SAMPLE_PARAMETER", "PERFTOOLS_VERBOSE",
     "NSS_WRAPPER_DEBUGLEVEL", "UID_WRAPPER_DEBUGLEVEL"],
)  # fmt: skip
def test_what_makes_a_preloaded_library_write_is_refused(name: str) -> None:
    talk = {os.fsencode(name): b"1"}
    assert refusal_of_loader(talk) is None
    assert refusal_of_loader({**talk, b"LD_PRELOAD": b""}) is None
    known = {**talk, b"LD_PRELOAD": b"libjemalloc.so.2"}
    assert refusal_of_loader(known) == Bypass(BypassReason.LOADER)


@pytest.mark.parametrize(
    ("preload", "loaded", "is_one"),
    [
        ("libjemalloc.so.2", "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", False),
        ("libjemalloc.so.2", "/usr/bin/../lib/x86_64-linux-gnu/libjemalloc.so.2", False),
        ("libjemalloc.so.2", "/home/me/libjemalloc.so.2", True),
        ("libjemalloc.so.2", "/usr/lib/../../home/me/libjemalloc.so.2", True),
        ("libstdc++.so.6 libjemalloc.so.2", "/tmp/libjemalloc.so.2", True),
        ("", "/home/me/libjemalloc.so.2", False),
        ("libjemalloc.so.2", "/home/me/libother.so.2", False),
        ("/usr/lib/libjemalloc.so.2", "/usr/lib/libjemalloc.so.2", False),
    ],
)
def test_a_known_name_in_a_foreign_directory_is_an_impostor(
    preload: str, loaded: str, is_one: bool
) -> None:
    env = {b"LD_PRELOAD": os.fsencode(preload)}
    assert has_impostor(env, [os.fsencode(loaded)]) is is_one


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("/a:/b", "/a:/b"),
        ("/a:", "/a:/cwd/"),
        (":/a", "/cwd/:/a"),
        ("lib;/a", "/cwd/lib;/a"),
        ("$ORIGIN/../lib:x", "$ORIGIN/../lib:/cwd/x"),
        ("${ORIGIN}/lib:$ORIGIN", "${ORIGIN}/lib:$ORIGIN"),
        # These expand to relative names, and unknown ones stay as they are.
        ("$LIB:/a", "/cwd/$LIB:/a"),
        ("$PLATFORM", "/cwd/$PLATFORM"),
        ("$ORIGIN;${LIB}/x", "$ORIGIN;/cwd/${LIB}/x"),
        ("$ORIGINAL", "/cwd/$ORIGINAL"),
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
    assert found.skipped == ()


@pytest.mark.parametrize("name", ["work dir", "a => b", "a (0x1)"])
def test_a_directory_of_libraries_may_hold_blanks(tmp_path: Path, name: str) -> None:
    program = os.fsencode(_program(tmp_path))
    (tmp_path / "lib").rename(tmp_path / name)
    path = os.fsencode(tmp_path / name)
    loaded = libraries_of(program, {b"LD_LIBRARY_PATH": path}).loaded
    assert path + b"/libown.so.1" in loaded
    assert all(map(os.path.isfile, loaded))


def test_the_loader_lists_what_it_skipped(tmp_path: Path) -> None:
    program = os.fsencode(_program(tmp_path))
    names = ("dangling", "class", "nowhere", "file")
    for name in names[:2]:
        (tmp_path / name).mkdir()
    (tmp_path / "dangling/libown.so.1").symlink_to("none")
    _write_of_other_class(tmp_path / "lib/libown.so.1", tmp_path / "class/libown.so.1")
    (tmp_path / "nowhere").symlink_to("none")
    (tmp_path / "file").write_bytes(b"")
    path = ":".join(str(tmp_path / name) for name in (*names, "lib"))
    found = libraries_of(program, {b"LD_LIBRARY_PATH": os.fsencode(path)})
    assert os.fsencode(tmp_path / "lib/libown.so.1") in found.loaded
    expected = {"dangling/libown.so.1", "class/libown.so.1", "nowhere", "file"}
    assert {*found.skipped} == {os.fsencode(tmp_path / name) for name in expected}
    assert not any(map(os.path.lexists, found.tried))


def test_a_library_that_could_not_be_preloaded_is_one_that_was_looked_for(tmp_path: Path) -> None:
    program = os.fsencode(_program(tmp_path))
    _write_of_other_class(tmp_path / "lib/libown.so.1", tmp_path / "class.so")
    root = os.fsencode(tmp_path)
    (tmp_path / "empty").mkdir()
    names = (b"none/a.so", b"empty/b.so", b"class.so", b"$LIB/c.so")
    env = {
        b"LD_PRELOAD": b" ".join(root + b"/" + name for name in names),
        b"LD_LIBRARY_PATH": root + b"/lib",
    }
    found = libraries_of(program, env)
    assert {root + b"/none", root + b"/empty/b.so"} <= {*found.tried}
    # The message does not show what $LIB stands for, so nothing proves that this library still fails.
    assert {*found.skipped} == {root + b"/class.so", root + b"/$LIB/c.so"}
    memo = FileMemo(lambda: 1 << 62)
    proven = {path: look_at_skipped(path, memo, memo.now_ns()).holds() for path in found.skipped}
    assert proven == {root + b"/class.so": True, root + b"/$LIB/c.so": False}


def _write_of_other_class(library: Path, path: Path) -> None:
    """Copy a library with the ELF class of another machine, so that the loader skips it."""
    data = bytearray(library.read_bytes())
    data[4] = 3 - data[4]
    path.write_bytes(data)


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


def _compiler() -> bytes:
    return os.fsencode(os.path.realpath(shutil.which("gcc") or "/usr/bin/gcc"))


def _libc() -> Path:
    loaded = libraries_of(_compiler(), {b"PATH": b"/usr/bin:/bin"}).loaded
    (real,) = (path for path in loaded if b"/libc.so" in path)
    return Path(os.fsdecode(real))


def _dangling(libc: Path, root: Path) -> Callable[[], object]:
    (root / "lib").mkdir()
    (root / "lib" / libc.name).symlink_to("../later")
    return lambda: shutil.copy(libc, root / "later")


def _link_that_is_turned(libc: Path, root: Path) -> Callable[[], object]:
    (root / "lib").mkdir()
    (root / "lib" / libc.name).symlink_to("none")

    def repair() -> None:
        (root / "lib" / libc.name).unlink()
        (root / "lib" / libc.name).symlink_to(libc)

    return repair


def _of_other_class(libc: Path, root: Path) -> Callable[[], object]:
    (root / "lib").mkdir()
    path = root / "lib" / libc.name
    _write_of_other_class(libc, path)
    return lambda: path.write_bytes(libc.read_bytes())


def _dangling_directory(libc: Path, root: Path) -> Callable[[], object]:
    (root / "lib").symlink_to("later")

    def repair() -> None:
        (root / "later").mkdir()
        shutil.copy(libc, root / "later" / libc.name)

    return repair


def _file_for_a_directory(libc: Path, root: Path) -> Callable[[], object]:
    (root / "lib").write_bytes(b"")

    def repair() -> None:
        (root / "lib").unlink()
        (root / "lib").mkdir()
        shutil.copy(libc, root / "lib" / libc.name)

    return repair


@pytest.mark.parametrize(
    "fault",
    [
        _dangling,
        _link_that_is_turned,
        _of_other_class,
        _dangling_directory,
        _file_for_a_directory,
    ],
)
@pytest.mark.parametrize("engine", [open_engine(), PythonEngine()], ids=lambda e: e.name)
def test_a_skipped_library_that_is_repaired_is_another_compiler(
    fault: Callable[[Path, Path], Callable[[], object]], engine: Engine, tmp_path: Path
) -> None:
    compilers = Compilers(FileMemo(lambda: 1 << 62), engine)
    env = {b"PATH": b"/usr/bin:/bin", b"LD_LIBRARY_PATH": os.fsencode(tmp_path / "lib")}
    repair = fault(_libc(), tmp_path)

    def identity() -> Identity:
        found = compilers.identify(_compiler(), env, lambda: False)
        assert isinstance(found, Identity)
        return found

    before = identity()
    assert identity() is before
    assert identity() is before
    repair()
    after = identity()
    assert after.digest != before.digest
    assert identity() is after


def test_a_skipped_library_is_pinned_by_its_stat(tmp_path: Path) -> None:
    memo = FileMemo(lambda: 1 << 62)
    compilers = Compilers(memo, open_engine())
    env = {b"PATH": b"/usr/bin:/bin", b"LD_LIBRARY_PATH": os.fsencode(tmp_path / "lib")}
    libc = _libc()
    _of_other_class(libc, tmp_path)
    path = tmp_path / "lib" / libc.name
    found = compilers.identify(_compiler(), env, lambda: False)
    assert isinstance(found, Identity)
    pins = Pins(memo)
    compilers.pin(found, _compiler(), env, pins)
    stat = signature_of(path.stat())
    assert Check(CheckKind.STATE, os.fsencode(path), stat) in pins.checks()
    # A permission can be what kept the loader from it.
    path.chmod(0o600)
    again = compilers.identify(_compiler(), env, lambda: False)
    assert again is not found
    assert again == found
    # No check of the engine proves that a link still leads nowhere.
    path.unlink()
    path.symlink_to("none")
    found = compilers.identify(_compiler(), env, lambda: False)
    assert isinstance(found, Identity)
    with pytest.raises(NotPinnedError):
        compilers.pin(found, _compiler(), env, Pins(memo))


def test_a_young_skipped_library_makes_the_loader_be_asked_again(tmp_path: Path) -> None:
    _of_other_class(_libc(), tmp_path)
    compilers = Compilers(FileMemo(lambda: 0), open_engine())
    env = {b"PATH": b"/usr/bin:/bin"}
    # Only the digests of young files are taken again.
    assert compilers.identify(_compiler(), env, lambda: False) is compilers.identify(
        _compiler(), env, lambda: False
    )
    env[b"LD_LIBRARY_PATH"] = os.fsencode(tmp_path / "lib")
    assert compilers.identify(_compiler(), env, lambda: False) is not compilers.identify(
        _compiler(), env, lambda: False
    )


@pytest.mark.parametrize(
    ("value", "cwd", "is_refused"),
    [
        ("/none:", "a:b", True),
        ("lib", "a;b", True),
        ("$LIB", "a$LIB", True),
        ("/none:", "plain", False),
        ("/none", "a:b", False),
        ("", "a:b", False),
        (None, "a:b", False),
    ],
)
def test_a_relative_library_path_in_a_directory_that_cannot_be_named_is_refused(
    value: str | None, cwd: str, is_refused: bool, tmp_path: Path
) -> None:
    compilers = Compilers(FileMemo(lambda: 1 << 62), open_engine())
    env = {b"PATH": b"/usr/bin:/bin"}
    if value is not None:
        env[b"LD_LIBRARY_PATH"] = os.fsencode(value)
    found = compilers.identify(_compiler(), env, lambda: False, os.fsencode(tmp_path / cwd))
    assert (found == Bypass(BypassReason.LOADER)) is is_refused
    assert isinstance(found, Identity) is not is_refused


class _Counting(PythonEngine):
    """An engine that notes each plan that it prepares and each answer to a replay."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: list[Plan] = []
        self.answers: list[int] = []

    def prepare(self, plan: Plan) -> Plan:
        self.plans.append(plan)
        return super().prepare(plan)

    def replay(self, prepared: object, connection: int) -> int:
        self.answers.append(super().replay(prepared, connection))
        return self.answers[-1]


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_a_compiler_without_variables_of_the_loader_has_no_skipped_library(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = os.fsencode(shutil.which(name) or f"/usr/bin/{name}")
    engine, looked_at = _Counting(), []

    def look(path: bytes, memo: FileMemo, asked_ns: int) -> Skipped:
        looked_at.append(path)
        return look_at_skipped(path, memo, asked_ns)

    monkeypatch.setattr("hpcc.cache.host.compiler_probe.look_at_skipped", look)
    memo = FileMemo(lambda: 1 << 62)
    compilers = Compilers(memo, engine)
    env = {b"PATH": b"/usr/bin:/bin"}
    first = compilers.identify(compiler, env, lambda: False)
    assert isinstance(first, Identity)
    for _ in range(4):
        assert compilers.identify(compiler, env, lambda: False) is first
    # The second time it was checked name by name, and all later ones by one call of the engine.
    assert (len(engine.plans), engine.answers) == (1, [Outcome.DONE] * 3)
    compilers.pin(first, compiler, env, Pins(memo))
    assert looked_at == []


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
