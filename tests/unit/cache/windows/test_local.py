"""Keys, refusals, misses and hits of the local cache on Windows, with a disk in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcc.cache.base.api import CompileRequest, Done, Run, RunReport
from hpcc.cache.base.tools import ProgramOutput
from hpcc.cache.windows.command import WindowsCompile, read_compile
from hpcc.compilers.spec.table import Bypass
from hpcc.config.settings import CacheSettings, Settings
from hpcc.core.reasons.bypass import BypassReason
from hpcc_testkit.windows.memory_disk import MemoryDisk

from .conftest import ARGV, LONG_AGO, NOTES, Desk, answer, machine, request


def key(disk: MemoryDisk, asked: CompileRequest) -> bytes:
    found = read_compile(disk, asked)
    assert isinstance(found, WindowsCompile), found
    return found.key


def test_the_key_holds_what_may_change_the_object() -> None:
    disk = machine()
    first = key(disk, request())
    assert key(disk, request(TMP="C:\\U", LIB="", HPCC_X="1", PATH="D:\\")) == first
    others = [
        request("/O1", *ARGV), request(cwd="C:\\v"), request(VSLANG="1031"),
        request(INCLUDE="C:\\sdk;C:\\VC\\include"), request(CL="/DX"), request(_CL_="/DX"),
        request(SOURCE_DATE_EPOCH="1"),
    ]  # fmt: skip
    keys = {first, *(key(disk, other) for other in others)}
    assert len(keys) == 1 + len(others)
    for path in (
        "C:\\LLVM\\bin\\clang-cl.exe",
        "C:\\LLVM\\bin\\a.dll",
        "C:\\VC\\bin\\Hostx64\\x64\\cl.exe",
    ):
        disk.put(path, b"program", at=LONG_AGO + 1)
        assert key(disk, request()) not in keys
        disk.put(path, b"program", at=LONG_AGO)
    disk.put("C:\\LLVM\\bin\\clang-cl.cfg")
    assert key(disk, request()) not in keys
    disk.languages = b"932 932 1041"
    assert key(disk, request()) not in keys


def test_what_is_beside_a_link_to_the_compiler_counts_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = machine()
    asked = request()._replace(compiler=b"C:\\links\\clang-cl.exe")
    monkeypatch.setattr(disk, "real", lambda path: "C:\\LLVM\\bin\\clang-cl.exe")
    disk.put("C:\\links\\clang-cl.exe", b"program")
    one = key(disk, asked)
    disk.put("C:\\links\\LLVM-C.dll")
    assert key(disk, asked) != one


@pytest.mark.parametrize("text", [b"@other.cfg\n", b"# a comment\r\n/Z7", b"x" * (65 << 10)])
def test_flags_of_a_configuration_file_are_left_to_the_compiler(text: bytes) -> None:
    disk = machine()
    disk.put("C:\\LLVM\\bin\\clang-cl.cfg", b"# only a comment\r\n\r\n")
    key(disk, request())
    disk.put("C:\\LLVM\\bin\\clang-cl.cfg", text)
    assert read_compile(disk, request()) == Bypass(BypassReason.CONFIG_FILE)


def test_cl_finds_some_of_its_libraries_by_path() -> None:
    disk = machine()
    for name in ("cl.exe", "c1xx.dll", "c2.dll"):
        disk.put(f"C:\\LLVM\\bin\\{name}")
    one = key(disk, request(program="cl.exe"))
    assert one != key(disk, request(program="cl.exe", PATH="D:\\"))


def test_a_response_file_counts_by_its_content() -> None:
    disk = machine()
    disk.put("C:\\w\\args.rsp", b"/DX=1 /nologo")
    one = key(disk, request("@args.rsp", *ARGV))
    disk.put("C:\\w\\args.rsp", b"/DX=2 /nologo")
    assert key(disk, request("@args.rsp", *ARGV)) != one


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request(VCToolsInstallDir=""), "visual-studio"),
        (request(INCLUDE=""), "visual-studio"),
        (request(*ARGV, "--target=x86_64-w64-windows-gnu"), "visual-studio"),
        (request(*ARGV, "/winsysroot", "sys"), "visual-studio"),
        (request(*ARGV, "/vctoolsdirC:\\VC"), "visual-studio"),
        (request(*ARGV, "/winsdkdir", "C:\\sdk"), "visual-studio"),
        (request(*ARGV, "-clang:--target=x86_64-w64-windows-gnu"), "pass-through"),
        (request(*ARGV, "/Z7"), "show-includes"),
        (request(*ARGV, "/clang:-gcodeview"), "show-includes"),
        (request(*ARGV, "-fms-secure-hotpatch-functions-file=x"), "extra-input"),
        (request(*ARGV, "/showIncludes:user"), "show-includes"),
        (request(*ARGV, "/Yuh.h"), "pch"),
        (request("/c", "/Zi", "x.c", program="cl.exe"), "pdb"),
        (request("/c", "/MP", "x.c", program="cl.exe"), "show-includes"),
        (request("/c", "x.c", program="cl.exe", CL="/MP4"), "show-includes"),
        (request(*ARGV, "/FoC:\\w\\x.c"), "odd-output"),
        (request(*ARGV, "/FoC:\\w\\inc"), "odd-output"),
        (request(*ARGV, "\\\\server\\y.c"), "multiple-sources"),
        (request("/c", "\\\\server\\y.c"), "windows-path"),
        (request(cwd="\\\\server\\w"), "windows-path"),
        (request(CCC_OVERRIDE_OPTIONS="+-DX"), "environment"),
        (request(CPATH="C:\\x"), "environment"),
        (request("-c", "x.c", program="gcc.exe"), "windows-host"),
        (request("/c", "x.c", "/sourceDependencies", "x.json", program="cl.exe"), "side-output"),
        (request(program="clang-cl-2.exe"), "compiler-unreadable"),
    ],
)
def test_what_is_not_for_the_cache_is_left_to_the_compiler(
    asked: CompileRequest, reason: str
) -> None:
    disk = machine()
    for name in ("cl.exe", "c1xx.dll", "c2.dll"):
        disk.put(f"C:\\LLVM\\bin\\{name}")
    disk.put("C:\\w\\inc.obj")
    if "inc" in str(asked.argv[-1]):
        disk.directories.add("C:\\w\\inc.obj")
        del disk.files["C:\\w\\inc.obj"]
    assert read_compile(disk, asked) == Bypass(reason)  # type: ignore[arg-type]  # a word


def test_a_miss_is_a_hit_the_second_time(desk: Desk) -> None:
    assert [desk.compile(err=b"x.c(1): warning\r\n") for _ in range(3)] == ["miss", "hit", "hit"]
    assert desk.disk.files["C:\\w\\x.obj"] == b"object of #define X 3\n"
    desk.disk.put("C:\\w\\inc\\h.h", b"#define X 4\n")
    assert [desk.compile(), desk.compile()] == ["miss", "hit"]
    assert desk.disk.files["C:\\w\\x.obj"] == b"object of #define X 4\n"
    counted = desk.counters.snapshot()
    assert (counted["hit.local"], counted["miss.local"]) == (3, 2)
    assert (counted["missed.new-command"], counted["missed.inputs-changed"]) == (1, 1)


@pytest.mark.parametrize("what", ["link", "two names", "another input"])
def test_a_hit_is_not_written_where_only_the_compiler_may(desk: Desk, what: str) -> None:
    output = "C:\\w\\inc\\h.h" if what == "another input" else "C:\\w\\x.obj"
    argv = (*ARGV, f"/Fo{output}")
    if what == "another input":
        # The compiler overwrote a header: its own result is never stored.
        assert [desk.compile(*argv, output=output) for _ in range(2)] == ["miss", "miss"]
        return
    assert desk.compile(*argv) == "miss"
    if what == "link":
        desk.disk.odd.add(output)
    else:
        desk.disk.links[output] = 2
    assert desk.compile(*argv) == "miss"
    assert desk.counters.snapshot()["uncacheable.output-not-ours"] == 1


@pytest.mark.parametrize("late", [b"", b"/DX"])
def test_a_response_file_that_changes_meanwhile_is_noticed(desk: Desk, late: bytes) -> None:
    desk.disk.put("C:\\w\\late.rsp")
    desk.late = late
    desk.compile("@late.rsp", *ARGV)
    counted = desk.counters.snapshot().get("uncacheable.modified-during-compile", 0)
    assert counted == (1 if late else 0)


def test_messages_on_both_streams_are_not_stored(desk: Desk) -> None:
    assert [desk.compile(out=b"x.c\r\n", err=b"y\r\n") for _ in range(2)] == ["miss", "miss"]
    assert desk.counters.snapshot()["uncacheable.both-streams"] == 2


def test_a_compiler_that_is_another_than_its_name_says_is_left_alone(desk: Desk) -> None:
    desk.disk.answer = lambda argv, cwd: (
        ProgramOutput(0, b"HPCC_PROBE cl 193833130\r\n", b"")
        if b"-EP" in argv
        else answer(argv, cwd)
    )
    assert desk.compile() == "other-compiler"


def test_an_abandoned_compile_does_not_hold_up_the_next(desk: Desk) -> None:
    run = desk.cache.begin(request(), lambda: False)
    assert isinstance(run, Run)
    desk.cache.abandon(run)
    assert [desk.compile(), desk.compile()] == ["miss", "hit"]


def test_an_object_that_two_compiles_wrote_at_once_belongs_to_neither(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two names of one directory.
    monkeypatch.setattr(desk.disk, "real", lambda path: path.replace("c:/junction", "c:/w"))
    desk.disk.directories.add("C:\\junction")
    assert desk.compile(*ARGV, "/DHIT") == "miss"
    others = (*ARGV, "/DX1"), (*ARGV, "/DX2", "/FoC:\\JUNCTION\\x.obj")
    runs = [desk.cache.begin(request(*argv), lambda: False) for argv in others]
    assert desk.compile(*ARGV, "/DHIT") == "hit"
    alone = desk.cache.begin(request(*ARGV, "/DX3", "/Foc.obj"), lambda: False)
    for path in ("C:\\w\\x.obj", "C:\\JUNCTION\\x.obj", "C:\\w\\c.obj"):
        desk.disk.put(path, b"object of one of them", at=time.time_ns())
    for run in (*runs, alone):
        assert isinstance(run, Run)
        desk.cache.finish(run, RunReport(0, 0, NOTES + b".\\inc/h.h\r\n", b"", False))
    assert [desk.compile(*ARGV, flag) for flag in ("/DX1", "/DX2")] == ["miss", "miss"]
    assert desk.compile(*ARGV, "/DX3", "/Foc.obj") == "hit"
    assert desk.counters.snapshot()["uncacheable.modified-during-compile"] == 2
    assert [desk.compile(*ARGV, flag) for flag in ("/DX1", "/DX2")] == ["hit", "hit"]


@pytest.mark.parametrize("said", [b"InstalledDir: C:/apps/2/bin\r\n", b"", b"InstalledDir: x\r\n"])
def test_a_starter_of_an_unseen_compiler_is_left_alone(desk: Desk, said: bytes) -> None:
    def other(argv: Sequence[bytes], cwd: bytes) -> ProgramOutput:
        found = answer(argv, cwd)
        return found._replace(stderr=found.stderr.replace(b"InstalledDir: C:/LLVM/bin\r\n", said))

    desk.disk.answer = other
    assert [desk.compile(), desk.compile()] == ["starter", "starter"]


def test_cl_and_its_users_list_may_have_many_processes() -> None:
    disk = machine()
    for name in ("cl.exe", "c1xx.dll", "c2.dll"):
        disk.put(f"C:\\LLVM\\bin\\{name}")
    key(disk, request("/c", "/MP", "/showIncludes", "x.c", program="cl.exe"))
    key(disk, request("/c", "/MP", "x.c"))


def test_cl_without_its_libraries_is_a_starter() -> None:
    disk = machine()
    disk.put("C:\\LLVM\\bin\\cl.exe")
    assert read_compile(disk, request(program="cl.exe")) == Bypass(BypassReason.STARTER)


CL = ("/nologo", "/c", "/Iinc", "/Z7", "/showIncludes", "x.c")


@pytest.mark.parametrize(
    ("flag", "written", "is_kept"),
    [
        ("/Fdbuild\\", "", True),
        ("/Fdbuild\\", "C:\\w\\build\\vc143.PDB", False),
        ("/Fd:build\\t.pdb", "C:\\w\\build\\vc143.pdb", True),
        ("/Fd:build\\t.pdb", "C:\\w\\build\\t.pdb", False),
        ("/Fdbuild\\t", "C:\\w\\build\\t.pdb", False),
        ("/Fd\\\\server\\t.pdb", "", False),
    ],
)
def test_a_database_that_cl_wrote_refuses_the_result(
    desk: Desk, flag: str, written: str, is_kept: bool
) -> None:
    for name in ("cl.exe", "c1xx.dll", "c2.dll"):
        desk.disk.put(f"C:\\LLVM\\bin\\{name}")
    desk.disk.put("C:\\w\\build\\old.pdb")
    desk.disk.answer = lambda argv, cwd: (
        ProgramOutput(0, b"HPCC_PROBE cl 193833130\r\n", b"")
        if b"-EP" in argv
        else answer(argv, cwd)
    )
    asked = request(*CL, flag, program="cl.exe")
    for _ in range(2):
        found = desk.cache.begin(asked, lambda: False)
        if isinstance(found, Done):
            break
        assert isinstance(found, Run)
        for path in filter(None, ("C:\\w\\x.obj", written)):
            desk.disk.put(path, b"new", at=time.time_ns())
        text = b"x.c\r\n" + NOTES + b".\\inc/h.h\r\n"
        desk.cache.finish(found, RunReport(0, 0, text, b"", False))
    counted = desk.counters.snapshot()
    assert (counted.get("hit.local", 0), counted.get("uncacheable.pdb", 0)) == (
        (1, 0) if is_kept else (0, 2)
    )


@pytest.mark.parametrize(
    ("argv", "environment", "run"),
    [
        (
            ("/c", "/Zi", "/Fdx.pdb", "/showIncludes", "x.c"),
            "",
            b"/c /Z7 /Fdx.pdb /showIncludes x.c",
        ),
        (
            ("-c", "-Zi", "/I", "/Zi", "/showIncludes", "x.c"),
            "",
            b"-c -Z7 /I /Zi /showIncludes x.c",
        ),
        (("/c", "/showIncludes", "x.c"), "/Zi", b"pdb"),
        (("/c", "/showIncludes", "@z.rsp", "x.c"), "", b"pdb"),
        (("/c", "/ZI", "/showIncludes", "x.c"), "", b"pdb"),
        (("/c", "/Zi", "x.c"), "", b"show-includes"),
    ],
)
def test_the_users_setting_puts_cls_debug_information_into_the_object(
    tmp_path: Path, argv: tuple[str, ...], environment: str, run: bytes
) -> None:
    desk = Desk(tmp_path, Settings(cache=CacheSettings(embed_debug_info=True)))
    for name in ("cl.exe", "c1xx.dll", "c2.dll"):
        desk.disk.put(f"C:\\LLVM\\bin\\{name}")
    desk.disk.put("C:\\w\\z.rsp", b"/Zi")
    desk.disk.answer = lambda argv, cwd: (
        ProgramOutput(0, b"HPCC_PROBE cl 193833130\r\n", b"")
        if b"-EP" in argv
        else answer(argv, cwd)
    )
    found = desk.cache.begin(request(*argv, program="cl.exe", CL=environment), lambda: False)
    assert (b" ".join(found.argv[1:]) if isinstance(found, Run) else found.reason.encode()) == run  # type: ignore[union-attr]  # never done
    if isinstance(found, Run):
        desk.cache.abandon(found)
    desk.counters.close()
