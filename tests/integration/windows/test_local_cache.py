"""The local cache on Windows: the native clang-cl under Wine, launcher and daemon as users run them.

Hits start no compiler: the program named clang-cl.exe counts its starts. A hit that was kept for the
launcher asks no daemon: the launcher leaves a record of it.
"""

from __future__ import annotations

import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.windows.agent import drive_c
from hpcc_testkit.windows.client import WindowsClient
from hpcc_testkit.windows.native_clang import (
    PLACES,
    install_clang_cl,
    install_starter,
    windows_name,
)
from hpcc_testkit.windows.wine import Wine

pytestmark = pytest.mark.timeout(600)
ARGV = ("/nologo", "/c", "/O2", "/Iearly", "/Iinc", "x.c")
# A file that is younger than this when the compiler starts may have changed since.
SETTLED_SECONDS = 0.3


@pytest.fixture(scope="module")
def client(wine: Wine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowsClient]:
    """Yield a client whose daemon runs, in a prompt of Visual Studio."""
    clang = install_clang_cl(wine, PLACES[0])
    made = WindowsClient(wine, tmp_path_factory.mktemp("client"), clang, "local")
    (drive_c(wine) / "VC/include").mkdir(parents=True, exist_ok=True)
    (drive_c(wine) / "VC/include/v.h").write_text("#define V 4\n")
    made.env = {"VCToolsInstallDir": "C:\\VC", "INCLUDE": "C:\\VC\\include"}
    with made.daemon():
        yield made


class Project:
    """A source with headers in a separate directory, and what its compiles counted."""

    def __init__(self, client: WindowsClient, name: str, source: str = "") -> None:
        self.client = client
        self.directory = drive_c(client.wine) / "users/Jürgen/漢字" / name
        shutil.rmtree(self.directory, ignore_errors=True)
        for part in ("inc", "early"):
            (self.directory / part).mkdir(parents=True)
        self.write("inc/h.h", "#define X 3\n")
        default = '#include "H.H"\n#include <v.h>\nint f(void) { return X + V; }\n'
        self.write("x.c", source or default)
        client.cwd = self.directory

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)
        time.sleep(SETTLED_SECONDS)

    def write_bytes(self, name: str, data: bytes) -> None:
        (self.directory / name).write_bytes(data)
        time.sleep(SETTLED_SECONDS)

    def object(self, name: str = "x.obj") -> bytes:
        return (self.directory / name).read_bytes()

    def compile(self, *argv: str, runs: int, asked: int | None = None) -> bytes:
        """Compile; return what it printed on both streams.

        `runs`: whether the compiler started. `asked`: whether the launcher asked the daemon.
        """
        started, told = self.client.clang.runs, self.client.launcher_hits
        done = self.client.compile(*(argv or ARGV))
        assert done.returncode == 0, done
        assert bool(self.client.clang.runs - started) is bool(runs), done
        # A compile that asks the daemon may let it read what launchers told.
        is_told = self.client.launcher_hits == told + 1
        assert asked is None or is_told is not bool(asked)
        return done.stdout + done.stderr

    def counted(self, **counts: int) -> None:
        """Check what was counted since the last check."""
        now = self.client.stats()
        found = Counter(now)
        found.subtract(_COUNTED)
        _COUNTED.clear()
        _COUNTED.update(now)
        expected = {name.replace("__", ".").replace("_", "-"): n for name, n in counts.items()}
        assert {n: c for n, c in found.items() if c and n.startswith(_OUTCOMES)} == expected


_OUTCOMES = ("hit.", "miss.", "uncacheable.", "bypass.", "fallback.")
_COUNTED: Counter[str] = Counter()


def test_the_second_compile_runs_no_compiler(client: WindowsClient) -> None:
    project = Project(client, "second")
    bare = client.bare(*ARGV)
    assert bare.returncode == 0, bare
    expected = project.object()
    shown = project.compile(runs=1)
    (project.directory / "x.obj").unlink()
    assert project.compile(runs=0) == shown == bare.stdout + bare.stderr
    # Between a compile and the next one the object's time differs (`/Brepro` leaves it out).
    assert len(project.object()) == len(expected)
    assert project.object()[8:] == expected[8:]
    project.counted(miss__local=1, hit__local=1)
    names = sorted(p.name for p in project.directory.iterdir())
    assert names == ["early", "inc", "x.c", "x.obj"]


def test_every_changed_input_is_a_miss(client: WindowsClient) -> None:
    project = Project(client, "changed")
    argv = (*ARGV, "/Brepro")
    project.compile(*argv, runs=1)
    first = project.object()
    project.write("inc/h.h", "#define X 5\n")
    project.compile(*argv, runs=1)
    second = project.object()
    assert first != second
    # A header in an earlier directory, in other capitals.
    project.write("early/H.h", "#define X 6\n")
    project.compile(*argv, runs=1)
    third = project.object()
    assert third not in {first, second}
    (project.directory / "early/H.h").unlink()
    project.compile(*argv, runs=0)
    assert project.object() == second
    project.write("inc/h.h", "#define X 3\n")
    project.compile(*argv, runs=0)
    assert project.object() == first
    project.counted(miss__local=3, hit__local=2)
    told = client.hpcc("explain", windows_name(client.wine, project.directory / "x.c")).stdout
    assert b"a hit: the result was in the cache" in told, told


def test_a_hit_seen_before_is_answered_by_the_launcher_alone(client: WindowsClient) -> None:
    project = Project(client, "kept")
    argv = (*ARGV, "/Brepro", "/showIncludes")

    def compile_again(*, asked: int, runs: int = 0) -> bytes:
        return project.compile(*argv, runs=runs, asked=asked)

    shown = compile_again(asked=1, runs=1)
    first = project.object()
    assert compile_again(asked=1) == shown
    for _ in range(2):
        (project.directory / "x.obj").unlink()
        assert compile_again(asked=0) == shown
        assert project.object() == first
    (project.directory / "x.obj").write_bytes(b"a longer object than that of this compile" * 99)
    compile_again(asked=0)
    assert project.object() == first
    # After a change the daemon decides. What was kept for the old state is for that state only.
    project.write("inc/h.h", "#define X 5\n")
    compile_again(asked=1, runs=1)
    assert project.object() != first
    project.write("inc/h.h", "#define X 3\n")
    compile_again(asked=0)
    assert project.object() == first
    project.write("early/H.h", "#define X 6\n")
    compile_again(asked=1, runs=1)
    (project.directory / "early/H.h").unlink()
    compile_again(asked=0)
    assert project.object() == first
    (kept,) = (p for p in (client.home / "run/hits").iterdir() if b"\\kept\0" in p.read_bytes())
    whole = kept.read_bytes()
    for torn in (whole[:-1] + b"?", whole[:-1]):
        kept.write_bytes(torn)
        assert compile_again(asked=1) == shown
    kept.unlink()
    compile_again(asked=1)
    compile_again(asked=0)
    assert client.hpcc("clean").returncode == 0
    compile_again(asked=1, runs=1)
    project.counted(miss__local=4, hit__local=10)
    names = sorted(p.name for p in project.directory.iterdir())
    assert names == ["early", "inc", "x.c", "x.obj"]


def test_a_name_that_was_asked_for_must_stay_absent(client: WindowsClient) -> None:
    source = '#if __has_include("sub/Ünlich.h")\nint f(void) { return 1; }\n#endif\nint g;\n'
    project = Project(client, "asked", source)
    argv = (*ARGV, "/Brepro")
    project.compile(*argv, runs=1)
    first = project.object()
    project.compile(*argv, runs=0)
    (project.directory / "early/sub").mkdir()
    project.write("early/sub/ünlich.h", "")
    project.compile(*argv, runs=1)
    assert project.object() != first
    project.counted(miss__local=2, hit__local=1)


def test_the_users_own_list_of_headers_is_shown_and_replayed(client: WindowsClient) -> None:
    project = Project(client, "list")
    argv = (*ARGV, "/showIncludes", "/Z7", "/Foone.obj")
    shown = project.compile(*argv, runs=1)
    assert shown.count(b"Note: including file:") == 2, shown
    assert project.compile(*argv, runs=0) == shown
    project.counted(miss__local=1, hit__local=1)


def test_a_result_is_not_written_over_a_file_that_the_compiler_would_keep(
    client: WindowsClient,
) -> None:
    project = Project(client, "read-only")
    project.compile(runs=1)
    output = project.directory / "x.obj"
    output.chmod(0o444)
    done = client.compile(*ARGV)
    assert (done.returncode, output.stat().st_mode & stat.S_IWUSR) in {(1, 0), (0, stat.S_IWUSR)}
    failed = {"miss__failed": 1} if done.returncode else {"uncacheable__output_unreadable": 1}
    project.counted(miss__local=2, uncacheable__output_not_ours=1, **failed)


def test_what_is_not_certain_is_compiled_each_time(client: WindowsClient) -> None:
    project = Project(client, "uncertain")
    project.write("clock.c", "const char *t = __TIME__;\n")
    project.write("short.c", '#include "H~1.h"\nint x;\n')
    project.write("inc/H~1.h", "")
    for _ in range(2):
        project.compile("/nologo", "/c", "clock.c", runs=1)
    project.compile("/nologo", "/c", "/Iinc", "short.c", runs=1)
    project.compile(*ARGV, "/Z7", runs=1)
    client.compile(*ARGV, "/Ycx.h")
    saved, client.env = client.env, {"INCLUDE": "C:\\VC\\include"}
    try:  # not a developer's prompt
        project.compile(runs=1)
    finally:
        client.env = saved
    project.counted(
        miss__local=3,
        uncacheable__date_time=2,
        uncacheable__unclear_name=1,
        bypass__show_includes=1,
        bypass__pch=1,
        bypass__visual_studio=1,
    )


NO_TIMES = ("-Xclang", "-fno-pch-timestamp")


def test_a_precompiled_header_and_its_users(client: WindowsClient) -> None:
    project = Project(client, "precompiled", '#include "p.h"\nint f(void) { return X + g(); }\n')
    project.write("inc/p.h", '#pragma once\n#include "h.h"\nstatic int g(void) { return 4; }\n')
    project.write("p.c", '#include "p.h"\nint made;\n')
    flags = ("/nologo", "/c", "/Brepro", "/Z7", "/showIncludes", "/Iinc", "/Fpout.pch")
    make, use = (*flags, *NO_TIMES, "/Ycp.h", "p.c"), (*flags, "/Yup.h", "x.c")
    project.compile(*make, runs=1)
    made = project.object("out.pch"), project.object("p.obj")
    time.sleep(SETTLED_SECONDS)
    shown = project.compile(*use, runs=1)
    used = project.object()
    assert project.compile(*use, runs=0) == shown
    for name in ("out.pch", "p.obj", "x.obj"):
        (project.directory / name).unlink()
    project.compile(*make, runs=0)
    assert (project.object("out.pch"), project.object("p.obj")) == made
    # The compiler takes the one that hpcc put back, beside headers with other times.
    project.write("inc/p.h", (project.directory / "inc/p.h").read_text())
    done = client.bare(*use)
    assert (done.returncode, project.object()) == (0, used), done
    project.compile(*use, runs=0)
    project.counted(miss__local=2, hit__local=3)
    # An edit that keeps the length: the compiler itself would not notice.
    project.write("inc/h.h", "#define X 5\n")
    project.compile(*use, runs=1)
    project.compile(*make, runs=1)
    time.sleep(SETTLED_SECONDS)
    project.compile(*use, runs=1)
    assert project.object() != used
    project.compile(*use, runs=0, asked=1)
    project.counted(miss__local=3, hit__local=1, uncacheable__pch_stale=1)
    # The launcher answers for a user, and for the maker the daemon.
    project.compile(*use, runs=0, asked=0)
    project.compile(*make, runs=0, asked=1)
    project.compile(*make, runs=0, asked=1)
    whole = (project.directory / "out.pch").read_bytes()
    project.write_bytes("out.pch", whole[:-1] + bytes([whole[-1] ^ 1]))
    client.compile(*use)  # the compiler may refuse it
    project.write_bytes("out.pch", whole)
    project.compile(*use, runs=0, asked=0)
    project.write("inc/h.h", "#define X 7\n")
    project.compile(*use, runs=1, asked=1)
    project.counted(miss__local=2, hit__local=4, uncacheable__pch=1, uncacheable__pch_stale=1)


def test_a_precompiled_header_with_times_is_made_each_time(client: WindowsClient) -> None:
    project = Project(client, "times", "int f(void) { return X; }\n")
    project.write("p.c", "/* generated by CMake */\n")
    header = windows_name(client.wine, project.directory / "inc/h.h").replace("\\", "/")
    flags = ("/nologo", "/c", "/Brepro", f"/FI{header}", "/Fp./out.c.pch")
    make, use = (*flags, f"/Yc{header}", "--", "p.c"), (*flags, f"/Yu{header}", "--", "x.c")
    for runs in (1, 0):
        project.compile(*make, runs=1)
        time.sleep(SETTLED_SECONDS)
        project.compile(*use, runs=runs)
    project.counted(miss__local=3, hit__local=1, uncacheable__pch_timestamp=2)


def test_debug_information_is_in_the_object_also_with_zi(client: WindowsClient) -> None:
    project = Project(client, "zi")
    flags = ("/nologo", "/c", "/Brepro", "/showIncludes", "/Iinc", "/Fd:x.pdb")
    assert client.bare(*flags, "/Z7", "x.c").returncode == 0
    inside = project.object()
    argv = (*flags, "/Zi", "x.c")
    project.compile(*argv, runs=1)
    assert project.object() == inside
    (project.directory / "x.obj").unlink()
    project.compile(*argv, runs=0)
    assert project.object() == inside
    assert not [*project.directory.glob("*.pdb")]
    project.counted(miss__local=1, hit__local=1)


_FILES = r"""
import os, sys
from hpcc.cache.windows.system_disk import WindowsDisk
from hpcc.daemon.windows_process import _resolved
from hpcc.windows.library import load_library, load_text, memory, text
library = load_library()
with memory(library, text(sys.argv[1])) as name, memory(library, bytes(2000)) as at:
    assert library.call("GetShortPathNameW", name, at, 1000).value
    short = load_text(library, at)
assert "~" in short and _resolved(library, short) == sys.argv[1], short
disk = WindowsDisk(library)
path = os.path.abspath("t.h")
with open(path, "wb") as file:
    file.write(b"x")
    assert disk.times(path, is_at_rest=True) is None
    assert disk.times(path, is_at_rest=False) is not None
before = disk.times(path, is_at_rest=True)
assert before.links == 1 and before.is_plain and before.changed_ns
assert disk.read(path, 1) == b"x" and disk.read(path, 0) is None and disk.read("NUL", 9) is None
os.utime(path, (1, 1))
after = disk.times(path, is_at_rest=True)
assert after.written_ns == 10**9 and after.changed_ns >= before.changed_ns, (before, after)
os.link(path, path + "2")
assert disk.times(path, is_at_rest=False).links == 2
os.unlink(path + "2")
assert disk.entries(os.path.dirname(path))["t.h"] is False and disk.entries(path) is None
from hpcc.core import CallerError
from hpcc.windows.users import own_sid
from hpcc.windows.writers import check_programs
try:
    check_programs(library, (path,))
except CallerError as error:
    assert error.reason == "service-writable" and own_sid(library) in str(error), error
else:
    raise AssertionError("its owner may change it")
print("all as expected")
"""


def test_the_systems_calls_tell_what_the_cache_relies_on(client: WindowsClient) -> None:
    Project(client, "calls")
    done = client.python(_FILES, client.clang.program)
    assert done.stdout.split() == b"all as expected".split(), done


def test_an_upgrade_behind_a_starter_is_a_miss(client: WindowsClient) -> None:
    one, two = (install_clang_cl(client.wine, f"apps/{n}", f"-DV={n} ") for n in (3, 4))
    current = drive_c(client.wine) / "apps/current"
    current.unlink(missing_ok=True)
    current.symlink_to("3")
    target = "C:\\apps\\current\\bin\\clang-cl.exe"
    starter = install_starter(client.wine, "shims", target, has_text=True)
    project = Project(client, "starter", "int f(void) { return V; }\n")
    argv = ("/nologo", "/c", "/Brepro", "x.c")
    objects = []
    for version, runs in ((one, 1), (one, 0), (two, 1), (two, 0), (one, 0)):
        current.unlink()
        current.symlink_to(version.directory.parent.name)
        before = version.runs
        assert client.compile(*argv, compiler=starter.program).returncode == 0
        assert bool(version.runs - before) is bool(runs)
        objects.append(project.object())
    assert objects[0] == objects[1] == objects[4] != objects[2] == objects[3]
    project.counted(miss__local=2, hit__local=3)
    hidden = install_starter(client.wine, "hidden", target, has_text=False)
    for _ in range(2):
        assert client.compile(*argv, compiler=hidden.program).returncode == 0
    project.counted(bypass__starter=2)


def test_clean_empties_the_cache(client: WindowsClient) -> None:
    project = Project(client, "clean")
    project.compile(runs=1)
    assert client.hpcc("clean").returncode == 0
    project.compile(runs=1)
    project.counted(miss__local=2)
    assert Path(client.home, "cache/private").is_dir()
