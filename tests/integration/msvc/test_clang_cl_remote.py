"""clang-cl in guests: what is sent, equality with a bare compile, and which compiles stay local."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.cache import open_cache
from hpcc.config.farm_session import FarmSession
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import ClientPolicy, Toolchain
from hpcc_testkit.cache.cl_bench import ClBench
from hpcc_testkit.cache.compiles import FARM, FakeRemote

pytestmark = pytest.mark.timeout(200)
SOURCE = '#include "inc/h.h"\nint f(void) { return X; }\nconst char *g(void) { return name(); }\n'
HEADER = "#pragma once\n#define X 3\nstatic const char *name(void) { return __FILE__; }\n"
FLAGS = ("/nologo", "/c", "/Brepro", "/O1")


@pytest.fixture
def remote(programs: Path) -> FakeRemote:
    remote = FakeRemote()
    remote.programs = (str(programs),)
    return remote


@pytest.fixture
def far(tmp_path: Path, programs: Path, remote: FakeRemote) -> Iterator[ClBench]:
    cache = open_cache(Paths.from_env({"HPCC_DIR": str(tmp_path / "hpcc")}), Settings(), remote)
    cwd = (tmp_path / "work").resolve()
    cwd.mkdir()
    bench = ClBench(cwd, cache, programs)
    bench.write(".hpcc", "")
    bench.write("x.c", SOURCE)
    bench.write("inc/h.h", HEADER)
    yield bench
    cache.close()


def twice(bench: ClBench, *argv: str, output: str = "x.obj") -> bytes:
    """Compile on the farm and then hit locally; compare both with the bare compile."""
    before = bench.cache.counters()
    answers = [bench.compile(*argv, output=output) for _ in range(2)]
    after = bench.cache.counters()
    assert [got.answer for got, _ in answers] == ["done", "done"], after
    assert answers[0][1] == answers[1][1]
    for name in ("miss.remote.executed", "hit.remote"):
        assert after[name] - before.get(name, 0) == 1, after
    return answers[1][1]


def test_an_object_of_a_guest_is_the_bare_compilers(far: ClBench) -> None:
    (far.cwd / "out").mkdir()
    for flags, output in (
        ("/Foout/y.obj", "out/y.obj"), ("/Foout/", "out/x.obj"), ("/TP /EHsc /std:c++20 /W4", ""),
        ("/showIncludes", ""), ("-Iinc -clang:-fno-plt -mavx2", ""), ("/FIinc/h.h /UX", ""),
    ):  # fmt: skip
        found = twice(far, *FLAGS, *flags.split(), "x.c", output=output or "x.obj")
        assert found[:2] == b"\x64\x86"


def test_with_debug_information_no_path_of_this_machine_is_in_the_object(
    far: ClBench, remote: FakeRemote
) -> None:
    source = str(far.cwd / "x.c")
    for _ in range(2):
        (far.cwd / "x.obj").unlink(missing_ok=True)
        got = far.launcher.compile("clang-cl", "/c", "/Z7", f"/Fo{far.cwd}/x.obj", source)
        assert (got.answer, got.exit_code, got.stderr) == ("done", 0, b"")
    data = (far.cwd / "x.obj").read_bytes()
    assert b"-cc1" not in data
    assert str(far.cwd).encode() not in data
    assert b"/src" not in data
    (request,) = remote.requests
    assert request.argv == (
        "clang-cl", "/c", "/Z7", "-Fox.obj", *request.injected, "--", "/src/x.c",
    )  # fmt: skip
    assert set(request.injected) == {
        "-Brepro", "-clang:-ffile-prefix-map=/src=.", "-clang:-fno-file-reproducible",
        "-clang:-ffile-compilation-dir=.", "-clang:-gno-codeview-command-line", "-Werror=date-time",
    }  # fmt: skip
    assert [i.path for i in request.inputs] == ["inc/h.h", "x.c"]


def test_a_depfile_of_a_guest_names_this_machines_files(far: ClBench) -> None:
    header = far.write("out/inc/other.h", "#define Y 1\n")
    far.write("x.c", f'#include "{header}"\n{SOURCE}')
    depfile = far.cwd / "out/x.d"
    named = ("-clang:-MD", "-clang:-MTx.obj", f"-clang:-MF{depfile}")
    for flags in ((*named, "x.c"), ("/Z7", *named, "-clang:-MP", str(far.cwd / "x.c"))):
        bare = far.compile(*FLAGS, *flags) if "/Z7" not in flags else None
        assert bare is None or bare[0].answer == "done"
        depfile.unlink(missing_ok=True)
        got = far.launcher.compile("clang-cl", *FLAGS, *flags)
        assert (got.answer, got.exit_code, got.stderr) == ("done", 0, b"")
        text = depfile.read_bytes()
        assert text.startswith(b"x.obj:")
        assert str(header).encode() in text
        assert b"/src" not in text


def test_a_header_beside_an_includers_includer_travels(far: ClBench) -> None:
    far.write("x.c", '#include "sub/a.h"\nint f(void) { return X; }\n')
    far.write("sub/a.h", '#include "b.h"\n')
    far.write("b.h", "#define X 2\n")
    twice(far, *FLAGS, "x.c")


def test_a_backslash_in_an_include_is_a_slash(far: ClBench) -> None:
    far.write("x.c", '#define H "inc\\h.h"\n#include H\nint f(void) { return X; }\n')
    argv = (*FLAGS, "-Wno-nonportable-include-path", "x.c")
    one = twice(far, *argv)
    far.write("inc/h.h", "#define X 9\n")
    assert far.compile(*argv)[1] != one


def test_directories_of_the_include_variables_travel(far: ClBench, remote: FakeRemote) -> None:
    far.write("x.c", "#include <h.h>\nint f(void) { return X; }\n")
    far.env["INCLUDE"] = f"{far.cwd}/inc;/usr/include"
    twice(far, *FLAGS, "x.c")
    assert dict(remote.requests[0].env)["INCLUDE"] == "/src/inc;/usr/include"
    far.env["INCLUDE"] = f"{far.cwd}/inc"
    assert far.launcher.compile("clang-cl", *FLAGS, "x.c").answer == "done"
    assert len(remote.requests) == 2


def test_what_only_this_machine_has_stays_here(far: ClBench) -> None:
    for argv, env, reason in (
        (("/I/opt/x",), {}, "outside-root"),
        (("/winsysroot/opt/x",), {}, "sysroot"),
        ((), {"VCToolsInstallDir": "/opt/vc"}, "environment"),
        ((), {"CPATH": "inc"}, "environment"),
        ((), {"INCLUDE": "/opt/x"}, "outside-root"),
    ):
        far.env |= env
        before = far.cache.counters().get(f"fallback.{reason}", 0)
        got, _ = far.compile(*FLAGS, *argv, "x.c")
        assert got.answer == "run"
        assert far.cache.counters()[f"fallback.{reason}"] == before + 1
        for name in env:
            del far.env[name]


def session(*names: str, family: str = "clang-cl", version: str = "19.1.7") -> FarmSession:
    compiler = Toolchain(
        names=names, family=family, version=version, target="x86_64-pc-windows-msvc"
    )  # fmt: skip
    return FarmSession(
        scheduler=FARM.scheduler, tenant=FARM.tenant, image=FARM.image, expires_at=2.0**33,
        policy=ClientPolicy(), compilers=(compiler,),
    )  # fmt: skip


def test_an_image_without_the_compiler_is_not_asked(far: ClBench, remote: FakeRemote) -> None:
    remote.said = session("gcc", family="gcc")
    got, _ = far.compile(*FLAGS, "x.c")
    assert got.answer == "run"
    assert far.cache.counters()["fallback.not-in-image"] == 1
    assert not remote.requests


def test_flags_are_those_of_the_images_version(far: ClBench, remote: FakeRemote) -> None:
    remote.said = dataclasses.replace(session("clang-cl", version="9.0.1"))
    far.launcher.compile("clang-cl", *FLAGS, "x.c")
    assert remote.requests[0].injected == ("-Werror=date-time",)  # /Brepro is the user's


def test_lines_of_headers_that_this_machine_lacks_are_left_out(
    far: ClBench, remote: FakeRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = remote.compile

    def compile_(request: object, is_cancelled: object) -> object:
        found = plain(request, is_cancelled)
        more = b"Note: including file:  /usr/lib/of-the-image/h.h\n"
        return dataclasses.replace(found, stdout=found.stdout + more)

    monkeypatch.setattr(remote, "compile", compile_)
    twice(far, *FLAGS, "/showIncludes", "x.c")
