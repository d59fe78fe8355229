"""Large objects, commands with several sources and reports of builds, as `test_local_cache`."""

from __future__ import annotations

import json
import time

import pytest

from hpcc_testkit.windows.client import WindowsClient
from hpcc_testkit.windows.native_clang import windows_name

from .test_local_cache import ARGV, NO_TIMES, SETTLED_SECONDS, Project, client

__all__ = ["client"]

pytestmark = pytest.mark.timeout(600)


def test_the_launcher_answers_with_an_object_of_20_mib(client: WindowsClient) -> None:
    project = Project(client, "large", "char large[20 << 20] = {1};\n")
    argv = ("/nologo", "/c", "/Brepro", "x.c")
    project.compile(*argv, runs=1)
    made = project.object()
    assert len(made) > 20 << 20
    project.compile(*argv, runs=0, asked=1)
    (project.directory / "x.obj").unlink()
    project.compile(*argv, runs=0, asked=0)
    assert project.object() == made
    project.write("x.c", "char large[20 << 20] = {2};\n")
    project.compile(*argv, runs=1, asked=1)
    assert project.object() != made
    project.counted(miss__local=2, hit__local=2)


def test_a_command_with_several_sources_is_one_compile_for_each(client: WindowsClient) -> None:
    project = Project(client, "several")
    for name, header in (("a", "h.h"), ("b", "v.h"), ("c", "h.h")):
        project.write(f"{name}.c", f"#include <{header}>\nint {name}(void) {{ return 1; }}\n")
    names = ("a.c", "b.c", "c.c")
    argv = ("/nologo", "/c", "/O2", "/Iinc", "/Brepro", *names)
    assert client.bare(*argv).returncode == 0
    objects = [name.replace(".c", ".obj") for name in names]
    expected = [project.object(name) for name in objects]
    assert project.compile(*argv, runs=1) == b""
    assert [project.object(name) for name in objects] == expected
    for name in objects:
        (project.directory / name).unlink()
    assert project.compile(*argv, runs=0) == b""
    assert [project.object(name) for name in objects] == expected
    project.counted(miss__local=3, hit__local=3)
    # One of them alone has the same key; an edit compiles that one.
    project.compile("/nologo", "/c", "/O2", "/Iinc", "/Brepro", "b.c", runs=0)
    project.write("b.c", "int b(void) { return 2; }\n")
    project.compile(*argv, runs=1)
    assert project.object("a.obj") == expected[0]
    assert project.object("b.obj") != expected[1]
    project.counted(miss__local=1, hit__local=3)
    project.write("b.c", "int b(void) { int unused; return 2; }\n")
    shown = project.compile(*argv, "/W4", runs=1)
    assert b"unused" in shown
    assert project.compile(*argv, "/W4", runs=1) == shown
    project.counted(miss__local=6, uncacheable__mixed_messages=6)


def test_compiles_are_in_the_report_of_their_build(client: WindowsClient) -> None:
    project = Project(client, "report")
    client.env["HPCC_BUILD"] = "nightly-7"
    try:
        project.compile(runs=1)
        project.compile(runs=0)
        client.compile(*ARGV, "/Ycx.h")
    finally:
        del client.env["HPCC_BUILD"]
    report = json.loads(client.hpcc("report", "nightly-7", "--json").stdout)
    assert {n: c for n, c in report["counts"].items() if c} == {"hit": 1, "here": 1, "bypass": 1}
    told = client.hpcc("report", "nightly-7").stdout
    assert b"x.c" in told, told
    trace = json.loads(client.hpcc("trace", "nightly-7", "-o", "-").stdout)
    assert trace["traceEvents"]
    assert b"nightly-7" in client.hpcc("builds").stdout
    project.counted(miss__local=1, hit__local=1, bypass__pch=1)


def test_cmakes_depfile_is_put_back_and_lists_the_headers(client: WindowsClient) -> None:
    """What CMake passes to clang-cl since 4: clang's own depfile in place of `/showIncludes`."""
    project = Project(client, "depfile")
    (project.directory / "CMakeFiles").mkdir()
    names = "-clang:-MTCMakeFiles\\x.c.obj", "-clang:-MFCMakeFiles\\x.c.obj.d"
    flags = ("/nologo", "/O2", "/Zi", "/Brepro", "/Iearly", "/Iinc", "-clang:-MD", *names)
    argv = (*flags, "/FoCMakeFiles\\x.c.obj", "/FdCMakeFiles\\x.pdb", "-c", "--", "x.c")
    files = project.directory / "CMakeFiles/x.c.obj", project.directory / "CMakeFiles/x.c.obj.d"
    bare = client.bare(*argv)
    assert bare.returncode == 0, bare
    expected = [path.read_bytes() for path in files]
    listed = expected[1].replace(b"\\", b"/")  # versions differ in it
    assert b"inc/H.H" in listed, expected[1]
    assert b"C:/VC/include/v.h" in listed
    # Ninja removes the depfile once it has read it. The launcher answers the third time.
    for runs, asked in ((1, 1), (0, 1), (0, 0)):
        for path in files:
            path.unlink()
        assert project.compile(*argv, runs=runs, asked=asked) == bare.stdout + bare.stderr
        assert [path.read_bytes() for path in files] == expected
    project.write("inc/h.h", "#define X 5\n")
    project.compile(*argv, runs=1)
    assert files[0].read_bytes() != expected[0]
    project.write("early/h.h", "#define X 6\n")
    project.compile(*argv, runs=1)
    assert b"early/H.H" in files[1].read_bytes().replace(b"\\", b"/")
    project.counted(miss__local=3, hit__local=2)


def test_a_user_of_a_precompiled_header_writes_its_depfile(client: WindowsClient) -> None:
    project = Project(client, "depfile-pch", "int f(void) { return X; }\n")
    project.write("p.c", "/* generated by CMake */\n")
    header = windows_name(client.wine, project.directory / "inc/h.h").replace("\\", "/")
    flags = ("/nologo", "/c", "/Brepro", "/Zi", f"/FI{header}", "/Fp./out.c.pch", *NO_TIMES)
    make = (*flags, f"/Yc{header}", "-clang:-MD", "-clang:-MFp.d", "--", "p.c")
    use = (*flags, f"/Yu{header}", "-clang:-MD", "-clang:-MFx.d", "--", "x.c")
    shown = []
    for runs in (1, 0):
        project.compile(*make, runs=runs)
        time.sleep(SETTLED_SECONDS)
        project.compile(*use, runs=runs)
        names = ("out.c.pch", "p.obj", "p.d", "x.obj", "x.d")
        shown.append([project.object(name) for name in names])
        for name in names:
            (project.directory / name).unlink()
    assert shown[0] == shown[1]
    project.counted(miss__local=2, hit__local=2)
