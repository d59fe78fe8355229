"""Keys, refusals, misses and hits of the local cache on Windows, with a disk in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hpcc.cache.base.api import CompileRequest, Done, Exec, Run, RunReport
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.tools import ProgramOutput
from hpcc.cache.windows.command import WindowsCompile, read_compile
from hpcc.cache.windows.local import WindowsCache
from hpcc.cache.windows.opening import open_windows_cache
from hpcc.compilers.spec.table import Bypass
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core.reasons.bypass import BypassReason
from hpcc.ports import SystemClock
from hpcc_testkit.windows.memory_disk import MemoryDisk

ENV = {
    "VCToolsInstallDir": "C:\\VC\\",
    "INCLUDE": "C:\\VC\\include;C:\\sdk",
    "PATH": "C:\\Windows",
    "TMP": "C:\\T",
    "LIB": "C:\\lib",
}
ARGV = ("/nologo", "/c", "/O2", "/Iinc", "x.c")
NOTES = b"Note: including file: "
LONG_AGO = 1_000_000_000_000_000_000


def answer(argv: Sequence[bytes], cwd: bytes) -> ProgramOutput:
    """Answer as clang-cl does what it is, which headers a probe reads, and where it searches."""
    if b"-EP" in argv:
        return ProgramOutput(0, b"HPCC_PROBE clang 22 1 8\r\n", b"")
    if b"-clang:-v" in argv:
        text = b"#include <...> search starts here:\r\n C:\\LLVM\\lib\r\nEnd of search list.\r\n"
        return ProgramOutput(0, b"", text)
    if cwd.startswith(b"T:"):
        notes = (b"hpcc_probe_outer.h", b" hpcc_probe_inner.h")
        return ProgramOutput(0, b"".join(NOTES + name + b"\r\n" for name in notes), b"")
    return ProgramOutput(1, b"", b"")


def machine() -> MemoryDisk:
    disk = MemoryDisk(now=LONG_AGO, answer=answer)
    for path in (
        "C:\\LLVM\\bin\\clang-cl.exe",
        "C:\\LLVM\\bin\\a.dll",
        "C:\\VC\\bin\\Hostx64\\x64\\cl.exe",
    ):
        disk.put(path, b"program")
    disk.put("C:\\w\\x.c", b'#include "h.h"\nint f(void) { return X; }\n')
    disk.put("C:\\w\\inc\\h.h", b"#define X 3\n")
    for path in ("C:\\VC\\include\\v.h", "C:\\sdk\\s.h", "C:\\LLVM\\lib\\l.h"):
        disk.put(path)
    return disk


def request(
    *argv: str, program: str = "clang-cl.exe", cwd: str = "C:\\w", **env: str
) -> CompileRequest:
    variables = {n: v for n, v in (ENV | env).items() if v}
    return CompileRequest(
        argv=(program.encode(), *(a.encode() for a in argv or ARGV)),
        compiler=f"C:\\LLVM\\bin\\{program}".encode(),
        cwd=cwd.encode(),
        env={n.encode(): v.encode() for n, v in variables.items()},
        umask=0,
        stderr_is_tty=False,
    )


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
    disk.put("C:\\LLVM\\bin\\cl.exe")
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
    disk.put("C:\\LLVM\\bin\\cl.exe")
    disk.put("C:\\w\\inc.obj")
    if "inc" in str(asked.argv[-1]):
        disk.directories.add("C:\\w\\inc.obj")
        del disk.files["C:\\w\\inc.obj"]
    assert read_compile(disk, asked) == Bypass(reason)  # type: ignore[arg-type]  # a word


class Desk:
    """A cache whose compiler writes the object of the sources' text."""

    def __init__(self, directory: Path) -> None:
        self.disk, self.late = machine(), b""
        paths = Paths.from_env({"HPCC_DIR": str(directory / "home")})
        self.counters = Counters(str(directory / "counters"), now=lambda: 0.0)
        self.cache: WindowsCache
        opened = open_windows_cache(self.disk, paths, Settings(), self.counters, SystemClock())
        self.cache, self.store = opened

    def compile(
        self, *argv: str, output: str = "C:\\w\\x.obj", out: bytes = b"", err: bytes = b""
    ) -> str:
        """Compile; return `hit`, `miss` or the reason of a bypass."""
        found = self.cache.begin(request(*argv), lambda: False)
        if isinstance(found, Done):
            assert (found.exit_code, found.stdout, found.stderr) == (0, out, err)
            return "hit"
        if isinstance(found, Exec):
            return found.reason
        assert isinstance(found, Run)
        self.disk.put("C:\\w\\late.rsp", self.late)
        header = self.disk.read("C:\\w\\inc\\h.h", 1 << 20) or b""
        self.disk.put(output, b"object of " + header, at=time.time_ns())
        notes = NOTES + b".\\inc/h.h\r\n"
        ended = self.cache.finish(found, RunReport(0, 0, notes + out, err, False))
        if found.filter_headers:
            assert found.argv[:2] == (b"C:\\LLVM\\bin\\clang-cl.exe", b"-showIncludes")
            assert (ended.stdout, ended.stderr) == (out, err)
        else:
            assert (ended.stdout, ended.stderr) == (b"", b"")
        return "miss"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.counters.close()


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


def test_an_object_that_two_compiles_wrote_at_once_belongs_to_neither(desk: Desk) -> None:
    assert desk.compile(*ARGV, "/DHIT") == "miss"
    runs = [desk.cache.begin(request(*ARGV, flag), lambda: False) for flag in ("/DX1", "/DX2")]
    assert desk.compile(*ARGV, "/DHIT") == "hit"
    alone = desk.cache.begin(request(*ARGV, "/DX3", "/Foc.obj"), lambda: False)
    for path in ("C:\\w\\x.obj", "C:\\w\\c.obj"):
        desk.disk.put(path, b"object of one of them", at=time.time_ns())
    for run in (*runs, alone):
        assert isinstance(run, Run)
        desk.cache.finish(run, RunReport(0, 0, NOTES + b".\\inc/h.h\r\n", b"", False))
    assert [desk.compile(*ARGV, flag) for flag in ("/DX1", "/DX2")] == ["miss", "miss"]
    assert desk.compile(*ARGV, "/DX3", "/Foc.obj") == "hit"
    assert desk.counters.snapshot()["uncacheable.modified-during-compile"] == 2
    assert [desk.compile(*ARGV, flag) for flag in ("/DX1", "/DX2")] == ["hit", "hit"]
