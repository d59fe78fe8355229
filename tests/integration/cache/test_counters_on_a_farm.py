"""Coverage and profiles on a farm: the object names the counters of this machine.

The guest is a mount namespace whose `/src` is the tree, because the length of that name counts.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.results.records_read import read_records
from hpcc.config.paths import Paths
from hpcc.core import Isolation, RemoteOutcome, RemoteOutput, RemoteRequest, RemoteResult
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, run_bare

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a mount at /src needs root")

FILES = {
    "src/a.c": '#include <assert.h>\n#include "h.h"\n'
    "static int s(int x) { return x > 3 ? x : h(x); }\n"
    "int f(int x) { assert(x); for (int i = 0; i < x; i++) if (i % 3) x += s(i); return x; }\n",
    "src/b.cc": '#include <string>\n#include "h.h"\n'
    "std::string f(int x) { return x > h(x) ? std::to_string(x) : __FILE__; }\n"
    'extern "C" int main() { return f(3).empty(); }\n',
    "inc/h.h": "static inline int h(int x) { return x * 2; }\n",
}
# GCC writes the time into object and notes: four bytes, which differ between any two compiles.
STAMP = 4
_MOUNT = 'mount --bind "$1" /src && cd "/src/$2" && shift 2 && exec env -i "$@"'


class MountedRemote(FakeRemote):
    """Compiles in a mount namespace in which the tree is at /src."""

    def _compile_in(self, request: RemoteRequest, root: Path) -> RemoteOutcome:
        for name in (request.cwd, *request.directories, *map(os.path.dirname, request.outputs)):
            (root / name).mkdir(parents=True, exist_ok=True)
        for item in request.inputs:
            (root / item.path).parent.mkdir(parents=True, exist_ok=True)
            (root / item.path).write_bytes(Path(item.host_path).read_bytes())
        env = [f"{name}={value}" for name, value in request.env]
        ended = subprocess.run(
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                _MOUNT,
                "sh",
                root,
                request.cwd,
                *env,
                *request.argv,
            ],
            capture_output=True,
            check=False,
            timeout=100,
        )
        written = [name for name in request.outputs if (root / name).exists()]
        return RemoteResult(
            exit_code=ended.returncode,
            stdout=ended.stdout,
            stderr=ended.stderr,
            outputs=tuple(
                RemoteOutput(name, (root / name).read_bytes(), is_executable=False)
                for name in written
            ),
            is_cached=False,
            isolation=Isolation.LOCAL_NONE,
            action="0" * 64 + "/0",
        )


@pytest.fixture
def remote() -> Iterator[MountedRemote]:
    # Tests of several workers share the directory to mount on; the last one removes it.
    with open(Path(tempfile.gettempdir()) / "hpcc-tests-src.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not os.path.lexists("/src"):
            os.makedirs("/src", exist_ok=True)
            lock.write("made here")
            lock.flush()
        yield MountedRemote()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        lock.seek(0)
        if lock.read():
            os.rmdir("/src")
            lock.truncate(0)


@pytest.fixture
def cache(make_cache: Callable[..., Cache], remote: MountedRemote) -> Cache:
    return make_cache(remote)


@pytest.fixture
def launcher(cache: Cache, tmp_path: Path) -> FakeLauncher:
    root = tmp_path / "proj"
    old = time.time() - 3600
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        os.utime(root / name, (old, old))
    (root / ".git").mkdir()
    (root / "build/obj").mkdir(parents=True)
    return FakeLauncher(handler=cache, cwd=root / "build", env={"LC_ALL": "C.UTF-8"})


def _argv(compiler: str, flags: str, base: str) -> list[str]:
    source = "b.cc" if "++" in compiler else "a.c"
    paths = [f"-I{base}/inc", "-MD", "-c", f"{base}/src/{source}"]
    return [compiler, *flags.split(), *paths, *([] if "-o" in flags else ["-o", "obj/x.o"])]


def _taken(directory: Path) -> dict[str, bytes]:
    files = {p.name: p for p in (directory / "obj").iterdir() if p.suffix != ".d"}
    data = {name: path.read_bytes() for name, path in files.items()}
    for path in files.values():
        path.unlink()
    return data


def _differences(one: dict[str, bytes], other: dict[str, bytes]) -> int:
    """Return the largest number of bytes in which two files of one name differ."""
    assert {n: len(d) for n, d in one.items()} == {n: len(d) for n, d in other.items()}
    return max(
        sum(a != b for a, b in zip(data, other[name], strict=True)) for name, data in one.items()
    )


@pytest.mark.parametrize("marker", [".git", ".hpcc"])
@pytest.mark.parametrize(
    ("compiler", "how"),
    [
        ("gcc-12", "relative"),
        ("gcc-14", "relative"),
        ("g++", "relative"),
        ("clang-14", "absolute"),
        ("clang-19", "relative"),
        ("clang++-17", "absolute"),
    ],
)
def test_object_and_notes_are_those_of_a_compile_here(
    compiler: str, how: str, marker: str, launcher: FakeLauncher, remote: MountedRemote
) -> None:
    root = launcher.cwd.parent
    (root / marker).mkdir(exist_ok=True)
    is_gcc = "clang" not in compiler
    tried = ["--coverage", "--coverage -g -O1", "-fprofile-arcs -O2", "-ftest-coverage -Wall"]
    tried += ["-fprofile-generate -O2"] if is_gcc else []
    for number, flags in enumerate(tried, 1):
        argv = _argv(compiler, flags, ".." if how == "relative" else str(root))
        code, _, warnings = run_bare(argv, cwd=launcher.cwd, env=launcher.env)
        assert code == 0
        bare = _taken(launcher.cwd)
        ended = launcher.compile(*argv)
        assert (ended.answer, ended.stderr) == ("done", warnings), flags
        made = _taken(launcher.cwd)
        assert _differences(bare, made) <= (STAMP if is_gcc else 0), flags
        assert not any(b"/src/q7" in data for data in made.values())
        assert launcher.compile(*argv).answer == "done"
        assert _taken(launcher.cwd) == made
        assert len(remote.requests) == number


def test_the_counters_of_a_run_fit_the_notes(launcher: FakeLauncher, remote: MountedRemote) -> None:
    assert launcher.compile(*_argv("g++", "--coverage -O0", "..")).answer == "done"
    subprocess.run(["g++", "--coverage", "obj/x.o", "-o", "run"], cwd=launcher.cwd, check=True)
    subprocess.run(["./run"], cwd=launcher.cwd, check=True)
    assert (launcher.cwd / "obj/x.gcda").exists()
    shown = subprocess.run(
        ["gcov", "obj/x.o"], cwd=launcher.cwd, check=True, capture_output=True
    ).stdout
    assert b"Lines executed:100.00%" in shown
    assert len(remote.requests) == 1


@pytest.mark.parametrize(
    ("compiler", "flags", "how", "detail"),
    [
        ("gcc", "--coverage", "absolute", "--coverage with absolute names"),
        ("gcc", "--coverage -o ROOT/build/obj/x.o", "relative", "--coverage with absolute names"),
        ("gcc", "--coverage -flto", "relative", "--coverage with flags"),
        ("gcc", "--coverage -g -gz", "relative", "--coverage with flags"),
        ("gcc", "--coverage -ffile-prefix-map=ROOT=.", "relative", "--coverage with flags"),
        ("gcc", "--coverage -fsanitize=address", "relative", "--coverage with flags"),
        ("clang-19", "-fprofile-generate", "relative", "-fprofile-generate with flags"),
        ("gcc", "-fprofile-generate=prof", "relative", "-fprofile-generate=prof names"),
    ],
)
def test_what_the_compiler_does_more_with_names_stays_here(
    compiler: str, flags: str, how: str, detail: str,
    launcher: FakeLauncher, remote: MountedRemote, cache: Cache, paths: Paths,
) -> None:  # fmt: skip
    base = ".." if how == "relative" else str(launcher.cwd.parent)
    flags = flags.replace("ROOT", str(launcher.cwd.parent))
    ended = launcher.compile(*_argv(compiler, flags, base))
    assert (ended.answer, ended.exit_code, remote.requests) == ("run", 0, [])
    cache.close()
    (record,) = read_records(os.fspath(paths.cache))
    assert record.fallback.startswith(f"side-output: {detail}")


def test_a_source_that_holds_the_roots_name_in_a_guest_stays_here(
    launcher: FakeLauncher, remote: MountedRemote
) -> None:
    """The name would become this machine's in the object, also where the source wrote it."""
    header = launcher.cwd.parent / "inc/h.h"
    header.write_text(header.read_text() + 'const char shown[] = "/src/q7zk2xw9jv";\n')
    argv = _argv("gcc", "--coverage", "..")
    assert launcher.compile(*argv).exit_code == 0
    assert b"/src/q7zk2xw9jv" in (launcher.cwd / "obj/x.o").read_bytes()
    assert remote.requests == []
