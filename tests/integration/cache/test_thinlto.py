"""Back ends of ThinLTO: the object depends on the index and on each module that it names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc.compilers.scan.bitcode import may_direct_assembler, modules_of_index
from hpcc.compilers.spec.back_end import BACK_ENDS_OF_CLANG
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, FakeRemote, counted, run_bare
from hpcc_testkit.suite.newest_clang import NEWEST_MAJOR, newest

_SOURCES = {
    "a.c": "int g(int); int f(int x) { return g(x) + 1; }\n"
    "int main(int c, char **v) { return f(c); }\n",
    "b.c": "int g(int x) { return x * 3; }\n",
    "u.c": "int other(int x) { return x * 7; }\n",
}
_NEWEST = newest(f"clang-{NEWEST_MAJOR}")
_COMPILERS = [*(f"clang-{m}" for m in BACK_ENDS_OF_CLANG if m != NEWEST_MAJOR), _NEWEST]
_LATEST = _COMPILERS[-2:]


@pytest.fixture
def linked(project: Any, request: pytest.FixtureRequest) -> str:
    """Compile three sources to bitcode and make the indexes; return the compiler's name."""
    compiler = str(request.param)
    for name, text in _SOURCES.items():
        project.write(name, text)
        _bitcode(project.directory, compiler, name)
    _link(project.directory, compiler)
    project.settle()
    return compiler


def _bitcode(cwd: Path, compiler: str, name: str) -> None:
    argv = (compiler, "-O2", "-flto=thin", "-c", name)
    assert run_bare(argv, cwd=cwd)[0] == 0


def _link(cwd: Path, compiler: str) -> None:
    plugin = "-Wl,-plugin-opt,thinlto-index-only"
    modules = [name.replace(".c", ".o") for name in _SOURCES]
    argv = (compiler, "-O2", "-flto=thin", "-fuse-ld=gold", plugin, *modules, "-o", "prog")
    code, _, err = run_bare(argv, cwd=cwd)
    assert code == 0, err


def _argv(compiler: str, *flags: str, module: str = "a") -> tuple[str, ...]:
    index = f"-fthinlto-index={module}.o.thinlto.bc"
    return (compiler, "-O2", *flags, "-x", "ir", f"{module}.o", index, "-c", "-o", "native.o")


def _same(launcher: FakeLauncher, *argv: str) -> Compiled:
    """Run bare and through the cache; both must print the same and write the same object."""
    native = launcher.cwd / "native.o"
    native.unlink(missing_ok=True)
    bare = run_bare(argv, cwd=launcher.cwd)
    expected = native.read_bytes() if native.exists() else None
    native.unlink(missing_ok=True)
    ours = launcher.compile(*argv)
    assert (ours.exit_code, ours.stdout, ours.stderr) == bare
    assert (native.read_bytes() if native.exists() else None) == expected
    return ours


@pytest.mark.parametrize("linked", _COMPILERS, indirect=True)
def test_a_back_end_is_a_cached_compile(
    linked: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    cwd = launcher.cwd
    assert modules_of_index((cwd / "a.o.thinlto.bc").read_bytes()) == (b"a.o", b"b.o")
    argv = _argv(linked, "-fPIC", "-g0", "-ffunction-sections")
    assert _same(launcher, *argv).answer == "run"
    assert _same(launcher, *argv).answer == "done"
    # A module that the index does not name.
    project.write("u.o", "no bitcode\n")
    project.settle()
    assert _same(launcher, *argv).answer == "done"
    # One that it names: the linker need not have run again.
    before = (cwd / "native.o").read_bytes()
    project.write("b.c", "int g(int x) { return x * 5; }\n")
    _bitcode(cwd, linked, "b.c")
    project.settle()
    assert _same(launcher, *argv).answer == "run"
    assert (cwd / "native.o").read_bytes() != before
    assert _same(launcher, *argv).answer == "done"
    # Another index: nothing is imported.
    shutil.copy(cwd / "a.o.thinlto.bc", cwd / "kept.bc")
    project.write("a.o.thinlto.bc", "")
    project.settle()
    assert _same(launcher, *argv).answer == "run"
    assert _same(launcher, *argv).answer == "done"
    shutil.move(cwd / "kept.bc", cwd / "a.o.thinlto.bc")
    project.settle()
    assert _same(launcher, *argv).answer == "done"
    assert counted(cache, "miss.local", "hit.local") == (3, 5)


@pytest.mark.parametrize("linked", _COMPILERS, indirect=True)
def test_a_missing_module_is_never_kept(
    linked: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    """Clang ends with status 0, and the object lacks what it should hold or is not there."""
    cwd, argv = launcher.cwd, _argv(linked)
    (cwd / "b.o").rename(cwd / "away")
    project.settle()
    for _ in range(2):
        ours = _same(launcher, *argv)
        assert (ours.answer, ours.exit_code) == ("run", 0)
        assert b"b.o" in ours.stderr
    assert counted(cache, "uncacheable.input-vanished") == (2,)
    (cwd / "away").rename(cwd / "b.o")
    project.settle()
    assert _same(launcher, *argv).answer == "run"
    assert _same(launcher, *argv).answer == "done"
    # It vanishes after a result was kept.
    (cwd / "b.o").unlink()
    project.settle()
    assert _same(launcher, *argv).answer == "run"


@pytest.mark.parametrize("linked", _LATEST, indirect=True)
def test_a_message_is_never_kept(
    linked: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    """Clang says only there that it could not do what it should."""
    argv = _argv(linked, "-UX")  # an unused argument: a warning
    for _ in range(2):
        assert _same(launcher, *argv).answer == "run"
    assert counted(cache, "uncacheable.thinlto-message") == (2,)
    project.write("b.o", "no bitcode\n")
    project.settle()
    for _ in range(2):
        assert _same(launcher, *_argv(linked)).answer == "run"
    assert counted(cache, "hit.local") == (0,)


_READERS = {
    "module": '__asm__(".InCbin \\"u.c\\"");\nint g(int x) { return x; }\n',
    "function": '__attribute__((always_inline)) int g(int x) { __asm__ volatile("nop\\n'
    '.section .note.x\\n.incbin \\"u.c\\"\\n.previous"); return x; }\n',
    "operand": "void incbin(void); int g(int x) {\n"
    '__asm__ volatile(".section .note.x\\n.%c0 \\"u.c\\"\\n.previous" :: "i"(incbin));\n'
    "return x; }\n",
    "part": "void ncbin(void); int g(int x) {\n"
    '__asm__ volatile(".section .note.x\\n.i%c0 \\"u.c\\"\\n.previous" :: "i"(ncbin));\n'
    "return x; }\n",
    "alternative": 'int g(int x) { __asm__ volatile(".section .note.x\\n.{i|j}ncbin \\"u.c\\"\\n'
    '.previous" :: "r"(x)); return x; }\n',
    "dot": 'int g(int x) { __asm__ volatile(".section .note.x\\n{.|x}incbin \\"u.c\\"\\n'
    '.previous" :: "r"(x)); return x; }\n',
    "label": 'void o(void) __asm__(".incbin"); int g(int x) {\n'
    '__asm__ volatile(".section .note.x\\n%c0 \\"u.c\\"\\n.previous" :: "i"(o)); return x; }\n',
    "beginning": 'void o(void) __asm__(".in"); int g(int x) {\n'
    '__asm__ volatile(".section .note.x\\n%c0cbin \\"u.c\\"\\n.previous" :: "i"(o)); return x; }\n',
    "macro": '__asm__(".macro m a\\n.inc\\\\a \\"u.c\\"\\n.endm\\nm bin");\n'
    "int g(int x) { return x; }\n",
}


@pytest.mark.parametrize("linked", _COMPILERS, indirect=True)
def test_a_module_that_may_read_a_file_is_not_kept(
    linked: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    cwd = launcher.cwd
    for name, text in _READERS.items():
        project.write("b.c", text)
        _bitcode(cwd, linked, "b.c")
        assert may_direct_assembler((cwd / "b.o").read_bytes()), name
    _link(cwd, linked)
    project.settle()
    argv = _argv(linked, module="b")
    for _ in range(2):
        assert _same(launcher, *argv).answer == "run"
    assert counted(cache, "uncacheable.incbin", "hit.local") == (2, 0)
    # Other text for the assembler may stay.
    project.write("b.c", 'int g(int x) { __asm__("addl $5, %0; nop" : "+r"(x)); return x; }\n')
    _bitcode(cwd, linked, "b.c")
    _link(cwd, linked)
    project.settle()
    assert [_same(launcher, *argv).answer for _ in range(2)] == ["run", "done"]


@pytest.mark.parametrize("linked", _LATEST, indirect=True)
def test_an_index_that_cannot_be_read_is_not_kept(
    linked: str, launcher: FakeLauncher, cache: Cache, project: Any
) -> None:
    cwd, argv = launcher.cwd, _argv(linked)
    whole = (cwd / "a.o.thinlto.bc").read_bytes()
    # The names as the linker wrote them behind a wrapper, which Clang reads, too.
    head = b"".join(n.to_bytes(4, "little") for n in (0x0B17C0DE, 0, 20, len(whole), 0))
    (cwd / "a.o.thinlto.bc").write_bytes(head + whole)
    project.settle()
    for _ in range(2):
        assert _same(launcher, *argv).answer == "run"
    assert counted(cache, "uncacheable.thinlto-index", "miss.failed") == (2, 0)


_LEFT = (
    "-MD -MF a.d", "-S", "-emit-llvm", "-I.", "-fprofile-use=u.c", "-gsplit-dwarf", "-include u.c",
    "-fthinlto-index=b.o.thinlto.bc", "-funknown-flag", "-save-temps", "-B.", "-fno-integrated-as",
)  # fmt: skip


@pytest.mark.parametrize("linked", _LATEST, indirect=True)
def test_other_forms_run_unchanged(linked: str, launcher: FakeLauncher) -> None:
    for flags in _LEFT:
        answer = launcher.compile(*_argv(linked, *flags.split())).answer
        assert answer == "exec", flags
    for argv in (
        (linked, "-c", "a.c", "-fthinlto-index=a.o.thinlto.bc"),
        ("gcc-14", "-c", "-x", "ir", "a.o", "-o", "x.o"),
        (linked, "-x", "ir", "a.o", "-fsyntax-only"),
        (linked, "-x", "ir", "a.o", "-E"),
        (linked, "-x", "ir", "a.o", "-o", "prog"),
    ):
        assert launcher.compile(*argv).answer == "exec", argv


@pytest.mark.parametrize("linked", _LATEST, indirect=True)
def test_other_checkouts_and_the_farm_get_none(
    linked: str, make_cache: Any, launcher: FakeLauncher
) -> None:
    remote = FakeRemote()
    launcher.handler = cache = make_cache(remote)
    (launcher.cwd / ".hpcc").touch()
    argv = _argv(linked)
    assert [launcher.compile(*argv).answer for _ in range(2)] == ["run", "done"]
    clone = launcher.cwd.parent / "clone"
    shutil.copytree(launcher.cwd, clone)
    launcher.cwd = clone
    assert launcher.compile(*argv).answer == "run"
    assert remote.requests == []
    assert counted(cache, "hit.shared", "hit.content") == (0, 0)
