"""Directories that a guest calls by another name: installed ones, and the build directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.remote import guest_paths
from hpcc.cache.results.records_read import read_records
from hpcc.config.paths import Paths
from hpcc.core import RemoteRequest
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, FakeRemote, run_bare

FILES = {
    "proj/src/a.cc": '#include <lib/far.h>\n#include "gen.h"\nint one(int x) { return far_away(x) + GEN; }\n',
    "proj/src/plain.c": '#include "gen.h"\n#include "own.h"\nint two(void) { return GEN + OWN; }\n',
    "proj/src/own.h": "#define OWN 4\n",
    "proj/debug/gen.h": "#define GEN 3\n",
    "proj/debug/CMakeCache.txt": "",
    "proj/release/gen.h": "#define GEN 3\n",
    "proj/release/CMakeCache.txt": "",
    "installed/lib/far.h": '#include <cassert>\n#include "../more/deep.h"\n'
    "inline int far_away(int x) { assert(x); int unused; return x + DEEP; }\n"
    "inline const char *here() { return __FILE__; }\n",
    "installed/more/deep.h": "#define DEEP 2\n",
}

ENV = {"LC_ALL": "C.UTF-8"}  # as in a guest


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], remote: FakeRemote) -> Cache:
    return make_cache(remote)


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", tmp_path / "proj"], check=True)
    _age(tmp_path)
    # What is installed is below /usr or /opt, where a test does not write.
    below = f"{tmp_path}/installed".encode()
    real = guest_paths._is_for_everybody
    monkeypatch.setattr(guest_paths, "_INSTALLED_BELOW", (below,))
    monkeypatch.setattr(guest_paths, "_ROOT", os.geteuid())
    monkeypatch.setattr(
        guest_paths, "_is_for_everybody", lambda p: not p.startswith(below) or real(p)
    )
    for path in (tmp_path / "installed").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path


@pytest.fixture
def launcher(cache: Cache, top: Path) -> FakeLauncher:
    return FakeLauncher(handler=cache, cwd=top / "proj/debug", env=ENV)


def _age(directory: Path) -> None:
    old = time.time() - 3600
    for path in directory.rglob("*"):
        os.utime(path, (old, old), follow_symlinks=False)
    time.sleep(0.08)


def _argv(compiler: str, top: Path, flags: str, source: str = "a.cc") -> list[str]:
    own = flags.replace("TOP", str(top)).split()
    return [compiler, *own, "-I.", "-MD", "-c", f"{top}/proj/src/{source}", "-o", "out.o"]


def _outputs(launcher: FakeLauncher) -> tuple[bytes, list[str]]:
    """Return the object and the depfile's words, and remove both."""
    data = (launcher.cwd / "out.o").read_bytes()
    words = (launcher.cwd / "out.d").read_text().replace("\\\n", " ").split()
    (launcher.cwd / "out.o").unlink()
    (launcher.cwd / "out.d").unlink()
    return data, words


def _compare(launcher: FakeLauncher, argv: list[str]) -> Compiled:
    """Compile bare and for the farm; object, depfile and messages are the same."""
    code, _, warnings = run_bare(argv, cwd=launcher.cwd, env=ENV)
    assert code == 0
    wanted = _outputs(launcher)
    ended = launcher.compile(*argv)
    assert (ended.exit_code, ended.stderr) == (0, warnings)
    assert _outputs(launcher) == wanted
    return ended


@pytest.mark.parametrize("flag", ["-I", "-isystem ", "-iquote ", "-idirafter "])
@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("g++", "-O2 -Wall"), ("g++", "-g"), ("clang++", "-g -Wall"), ("clang++", "-O1")],
)
def test_a_directory_that_is_installed_for_everybody_is_sent(
    compiler: str, flags: str, flag: str, launcher: FakeLauncher, top: Path, remote: FakeRemote
) -> None:
    if flag == "-iquote ":
        (top / "proj/src/a.cc").write_text(
            FILES["proj/src/a.cc"].replace("<lib/far.h>", '"lib/far.h"')
        )
        _age(top / "proj")
    argv = _argv(compiler, top, f"{flags} {flag}TOP/installed")
    assert _compare(launcher, argv).answer == "done"
    sent = {item.path for item in remote.requests[-1].inputs}
    assert f"hpcc-installed{top}/installed/more/deep.h" in sent
    assert {p.partition("/")[0] for p in sent} == {"hpcc-project", "hpcc-installed"}
    assert launcher.compile(*argv).answer == "done"
    assert len(remote.requests) == 1
    (top / "installed/more/deep.h").write_text("#define DEEP 7\n")
    time.sleep(0.08)
    assert _compare(launcher, argv).answer == "done"
    assert len(remote.requests) == 2


def test_with_a_marker_installed_directories_are_sent_too(
    launcher: FakeLauncher, top: Path, remote: FakeRemote
) -> None:
    (top / "proj/.hpcc").touch()
    argv = _argv("g++", top, "-g -isystem TOP/installed")
    assert launcher.compile(*argv).answer == "done"
    data, words = _outputs(launcher)
    assert f"{top}/installed/lib/far.h".encode() in data
    assert f"{top}/proj".encode() not in data
    assert b"hpcc-" not in data
    assert (
        f"{top}/installed/more/deep.h" in "".join(words)
        or f"{top}/installed/lib/../more/deep.h" in words
    )


def test_an_installed_source_is_a_part_of_the_project_that_builds_it(
    launcher: FakeLauncher, top: Path, remote: FakeRemote
) -> None:
    (top / "installed/lib/all.cc").write_text('#include "far.h"\nint x = far_away(DEEP);\n')
    (top / "installed/lib/all.cc").chmod(0o644)
    _age(top)
    argv = [
        "g++",
        "-g",
        "-MD",
        f"-I{top}/proj/src",
        "-c",
        f"{top}/installed/lib/all.cc",
        "-o",
        "out.o",
    ]
    assert _compare(launcher, argv).answer == "done"
    assert len(remote.requests) == 1


@pytest.mark.parametrize("how", ["secret", "writable", "link", "hidden"])
def test_what_is_not_installed_for_everybody_stays_here(
    how: str, launcher: FakeLauncher, top: Path, remote: FakeRemote, cache: Cache, paths: Paths
) -> None:
    header = top / "installed/lib/far.h"
    directory = "TOP/installed"
    if how == "secret":
        header.chmod(0o640)
    elif how == "writable":
        (top / "installed/lib").chmod(0o777)
    elif how == "link":
        header.rename(top / "far.h")
        header.symlink_to(top / "far.h")
        (top / "installed/more/deep.h").rename(top / "more-deep.h")
        (top / "far.h").write_text("inline int far_away(int x) { return x; }\n")
    else:
        (top / "installed/.own").mkdir()
        shutil.move(top / "installed/lib", top / "installed/.own/lib")
        shutil.move(top / "installed/more", top / "installed/.own/more")
        directory = "TOP/installed/.own"
    _age(top)
    argv = _argv("g++", top, f"-isystem {directory}")
    assert launcher.compile(*argv).answer == "run"
    assert remote.requests == []
    cache.close()
    (record,) = read_records(os.fspath(paths.cache))
    assert record.fallback.startswith("outside-root: ")


@pytest.mark.parametrize("flag", ["-fsanitize=address", "-ffile-prefix-map=TOP/proj=."])
def test_flags_whose_names_no_map_changes_stay_with_installed_directories(
    flag: str, launcher: FakeLauncher, top: Path, remote: FakeRemote, cache: Cache
) -> None:
    (top / "proj/.hpcc").touch()
    assert launcher.compile(*_argv("g++", top, f"-isystem TOP/installed {flag}")).answer == "run"
    assert (remote.requests, cache.counters()["fallback.names-in-output"]) == ([], 1)


def _action(request: RemoteRequest) -> tuple[object, ...]:
    """Return what a worker's action cache sees of a request."""
    inputs = tuple((i.path, i.sha256, i.is_executable) for i in request.inputs)
    return request.argv, request.env, request.cwd, inputs, request.directories, request.outputs


def _both(cache: Cache, remote: FakeRemote, top: Path, argv: list[str]) -> bool:
    """Compile in both build directories, compare with a compile here, return if actions agree."""
    remote.requests.clear()
    for name in ("debug", "release"):
        cwd = top / "proj" / name
        own = [word.replace("BUILD", str(cwd)) for word in argv]
        assert _compare(FakeLauncher(handler=cache, cwd=cwd, env=ENV), own).answer == "done"
    first, second = remote.requests
    return _action(first) == _action(second)


@pytest.mark.parametrize("marker", [".hpcc", ".git"])
def test_a_second_build_directory_has_the_same_action(
    marker: str, top: Path, cache: Cache, remote: FakeRemote
) -> None:
    (top / "proj" / marker).mkdir(exist_ok=True)
    source = str(top / "proj/src/plain.c")
    argv = ["gcc", "-O2", "-Wall", "-IBUILD", "-MD", "-MT", "out.o", "-c", source, "-o", "out.o"]
    assert _both(cache, remote, top, argv)
    assert remote.requests[0].cwd == "hpcc-build-directory"
    assert _both(cache, remote, top, [*argv[:1], "-I../src", *argv[1:]])
    if marker == ".hpcc":
        return  # with a marker objects have relative names
    # The object shows the name of this source, and of no file in the build directory.
    (top / "proj/src/plain.c").write_text(
        FILES["proj/src/plain.c"] + "const char *at = __FILE__;\n"
    )
    _age(top)
    assert _both(cache, remote, top, argv)
    # Debug information names the directory.
    assert not _both(cache, remote, top, [argv[0], "-g", *argv[1:]])


@pytest.mark.parametrize(
    ("kept", "name", "text"),
    [
        ("debug", "src/own.h", '#define OWN 4\n#include "../debug/gen.h"\n'),
        (
            "debug",
            "src/own.h",
            "#define OWN 4\n#if __has_include(<debug/gen.h>)\n#define MORE\n#endif\n",
        ),
        (
            "release",
            "src/own.h",
            "#define OWN sizeof(__FILE__)\n#define NAME <release/gen.h>\n#include NAME\n",
        ),
        (
            "debug",
            "debug/gen.h",
            "#define GEN 3\nstatic const char *at = __FILE__;\nconst char *f(void) { return at; }\n",
        ),
        # A message would quote this line, and the name in it would be translated.
        ("release", "src/own.h", "#define OWN 4  // as in hpcc-build-directory\n"),
    ],
)
def test_a_name_that_matters_is_not_changed(
    kept: str, name: str, text: str, top: Path, cache: Cache, remote: FakeRemote
) -> None:
    (top / "proj" / name).write_text(text)
    if name.startswith("debug"):
        (top / "proj/release/gen.h").write_text(text)
    _age(top)
    source = str(top / "proj/src/plain.c")
    argv = ["gcc", "-O2", "-IBUILD", "-I../", "-MD", "-c", source, "-o", "out.o"]
    assert not _both(cache, remote, top, argv)
    assert kept in {request.cwd for request in remote.requests}


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_forced_header_with_a_whole_path_is_found_without_the_compiler(
    compiler: str, top: Path, cache: Cache, remote: FakeRemote
) -> None:
    """Meson's `-include <build>/config.h`."""
    source, header = top / "proj/src/plain.c", top / "proj/debug/gen.h"
    source.write_text("int two(void) { return GEN; }\n")
    _age(top)
    argv = [compiler, "-O2", "-include", "BUILD/gen.h", "-MD", "-c", str(source), "-o", "out.o"]
    assert _both(cache, remote, top, argv)
    launcher = FakeLauncher(handler=cache, cwd=top / "proj/debug", env=ENV)
    own = [word.replace("BUILD", str(top / "proj/debug")) for word in argv]
    header.write_text("#define GEN 70\n")
    time.sleep(0.08)
    assert _compare(launcher, own).answer == "done"
    header.unlink()
    assert launcher.compile(*own).exit_code == 1
    header.write_text("#define GEN 3\n")
    time.sleep(0.08)
    assert _compare(launcher, own).answer == "done"
    (top / "proj/debug/gen.h.pch").write_text("not a precompiled header")
    time.sleep(0.08)
    assert launcher.compile(*own).answer != "done" or compiler == "gcc"
    assert not any(name.startswith("closure.asked") for name in cache.counters())


def test_a_source_directory_with_a_build_systems_files_keeps_its_name(
    top: Path, cache: Cache, remote: FakeRemote
) -> None:
    (top / "proj/debug/CMakeLists.txt").touch()
    source = str(top / "proj/src/plain.c")
    argv = ["gcc", "-O2", "-IBUILD", "-MD", "-c", source, "-o", "out.o"]
    assert not _both(cache, remote, top, argv)
    assert [request.cwd for request in remote.requests] == ["debug", "hpcc-build-directory"]


@pytest.mark.parametrize("name", ["../../proj/src/own.h", "TOP/proj/src/own.h"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_way_out_of_the_root_and_back_stays_here(
    compiler: str, name: str, top: Path, launcher: FakeLauncher, cache: Cache, remote: FakeRemote
) -> None:
    """A guest would not find the file, and a question for it is answered without a word."""
    name = name.replace("TOP", "../" * 40 + str(top)[1:])
    (top / "proj/src/plain.c").write_text(
        f'#if __has_include("{name}")\nint a;\n#endif\n#if __has_include(<own.h>)\nint b;\n#endif\n'
    )
    for flags in ("-DX", f"-I{name.rpartition('/')[0]}"):
        argv = _argv(compiler, top, flags, "plain.c")
        run_bare(argv, cwd=launcher.cwd, env=ENV)
        bare = _outputs(launcher)
        assert launcher.compile(*argv).answer == "run"
        assert _outputs(launcher) == bare
    assert remote.requests == []
    assert cache.counters()["fallback.outside-root"] == 2
