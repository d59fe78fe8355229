"""A machine with a compiler, and a cache on it, for the tests of the local cache on Windows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hpcc.cache.base.api import CompileRequest, Done, Exec, Run, RunReport
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.tools import ProgramOutput
from hpcc.cache.key.marker import Marker
from hpcc.cache.remote.windows_root import windows_marker
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.local import WindowsCache
from hpcc.cache.windows.opening import open_windows_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import WindowsPath
from hpcc.ports import SystemClock
from hpcc.wire.address import fnv1a
from hpcc_testkit.windows.kept_hit import ModelLauncher
from hpcc_testkit.windows.memory_disk import OWNER, MemoryDisk

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
        text = (
            b"InstalledDir: C:/LLVM/bin\r\n#include <...> search starts here:\r\n"
            b" C:\\LLVM\\lib\r\nEnd of search list.\r\n"
        )
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


class Desk:
    """A cache whose compiler writes the object of the sources' text."""

    def __init__(self, directory: Path, settings: Settings | None = None) -> None:
        self.disk, self.late, self.extra, self.refuses_maps = machine(), b"", b"", False
        self.listed = b""  # a further name on the compiler's list
        self.written: dict[str, bytes] = {}  # further outputs
        self.program = "clang-cl.exe"
        self.disk.answer = self.answer
        paths = Paths.from_env({"HPCC_DIR": str(directory / "home")})
        self.counters = Counters(str(directory / "counters"), now=lambda: 0.0)
        self.cache: WindowsCache
        self.markers: dict[bytes, tuple[WindowsPath, Marker]] = {}
        hits = directory / "home/run/hits"

        def kept(request: bytes) -> bytes | None:
            path = hits / f"{fnv1a(request):016x}"
            return path.read_bytes() if path.exists() else None

        self.launcher, self.frame = ModelLauncher(self.disk, kept), b""
        opened = open_windows_cache(
            *(self.disk, paths, settings or Settings(), self.counters, SystemClock()),
            *(self.find_marker, "C:\\u", self.launcher),
        )
        self.cache, self.store = opened

    def find_marker(self, disk: CacheDisk, cwd: bytes) -> tuple[WindowsPath, Marker] | None:
        if cwd in self.markers:
            return self.markers[cwd]
        return windows_marker(disk, disk.look, cwd, home="C:\\u", owner=OWNER)

    def answer(self, argv: Sequence[bytes], cwd: bytes) -> ProgramOutput:
        if b"-EP" in argv and self.program == "cl.exe":
            return ProgramOutput(0, b"HPCC_PROBE cl 193833130\r\n", b"")
        if b"-Foempty.obj" in argv:
            return ProgramOutput(0, b"", b"unused" if self.refuses_maps else b"")
        return answer(argv, cwd)

    def compile(
        self,
        *argv: str,
        output: str = "",
        out: bytes = b"",
        err: bytes = b"",
        cwd: str = "C:\\w",
    ) -> str:
        """Compile; return `hit`, `miss` or the reason of a bypass.

        With a `frame`, as the request's bytes, also `kept`: the launcher answered without the daemon.
        """
        output = output or f"{cwd}\\x.obj"
        if self.frame and self.launcher.answer(self.frame) is not None:
            return "kept"
        asked = request(*argv, cwd=cwd, program=self.program)._replace(frame=self.frame)
        found = self.cache.begin(asked, lambda: False)
        if isinstance(found, Done):
            assert (found.exit_code, found.stdout, found.stderr) == (0, out, err)
            return "hit"
        if isinstance(found, Exec):
            return found.reason
        assert isinstance(found, Run)
        self.disk.put("C:\\w\\late.rsp", self.late)
        header = self.disk.read(f"{cwd}\\inc\\h.h", 1 << 20) or b""
        self.disk.put(output, b"object of " + header + self.extra, at=time.time_ns())
        for path, data in self.written.items():
            self.disk.put(path, data, at=time.time_ns())
        notes = NOTES + b".\\inc/h.h\r\n"
        notes += NOTES + self.listed + b"\r\n" if self.listed else b""
        if not any(word.endswith(b"showIncludes") for word in found.argv):
            notes = b""
        ended = self.cache.finish(found, RunReport(0, 0, notes + out, err, False))
        if found.filter_headers:
            assert found.argv[0] == b"C:\\LLVM\\bin\\clang-cl.exe"
            assert b"-showIncludes" in found.argv
            assert (ended.stdout, ended.stderr) == (out, err)
        else:
            assert (ended.stdout, ended.stderr) == (b"", b"")
        return "miss"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.counters.close()
