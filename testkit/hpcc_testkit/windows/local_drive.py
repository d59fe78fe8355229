r"""The local cache of a Windows client around the real clang-cl of this machine.

The drive Z: is this machine's root, as under Wine. So what clang-cl writes and lists is real, and
the calls of Windows are not. `LocalBench.compile` does what launcher and daemon do together.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcc.cache.base.api import CompileRequest, Done, Exec, Run, RunReport
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.tools import ProgramOutput
from hpcc.cache.windows.disk import FileTimes
from hpcc.cache.windows.opening import open_windows_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.ports import SystemClock
from hpcc_testkit.windows.cl_drive import Drive, posix

_PATHS: Final = re.compile(rb"(: +| |InstalledDir: )(/.*)")
_OUTCOMES: Final = ("hit.", "miss.", "uncacheable.", "bypass.")


def windows(path: Path) -> str:
    """Return a file's path on the drive."""
    return "Z:" + str(path).replace("/", "\\")


class LocalDrive(Drive):
    """A `CacheDisk`, see `Drive`. `runs` counts compiles."""

    languages: bytes = b"1252 437 1033"
    encoding: str = "utf-8"

    def __init__(self, clang_cl: Path) -> None:
        super().__init__(clang_cl)
        self.runs = 0

    def run(self, argv: Sequence[bytes], env: Mapping[bytes, bytes], cwd: bytes) -> ProgramOutput:
        words = ["/dev/null" if a == b"NUL" else posix(a.decode()) for a in argv[1:]]
        done = subprocess.run(
            [self.clang_cl, *words], cwd=posix(cwd.decode()), capture_output=True, check=False,
            env={n.decode(): posix(v.decode()) for n, v in env.items()}, timeout=100,
        )  # fmt: skip
        out, err = (
            _PATHS.sub(lambda m: m[1] + b"Z:" + m[2].replace(b"/", b"\\"), text)
            for text in (done.stdout, done.stderr)
        )
        return ProgramOutput(done.returncode, out, err)

    def times(self, path: str, *, is_at_rest: bool) -> FileTimes | None:
        del is_at_rest  # nobody writes here
        file = Path(posix(path))
        if not file.exists():
            return None
        found = file.stat()
        is_plain = file.is_file() and not file.is_symlink()
        identity = found.st_dev, found.st_ino
        times = found.st_mtime_ns, found.st_ctime_ns
        return FileTimes(*times, found.st_size, identity, found.st_nlink, is_plain)

    def entries(self, directory: str) -> Mapping[str, bool] | None:
        home = Path(posix(directory))
        return {p.name: p.is_dir() for p in home.iterdir()} if home.is_dir() else None

    def is_directory(self, path: str) -> bool | None:
        file = Path(posix(path))
        return file.is_dir() if file.exists() else None

    def look(self, path: str) -> None:
        del path  # the bench finds no marker


class LocalBench:
    """A project below `directory`, and the cache that answers its compiles."""

    def __init__(self, directory: Path, clang_cl: Path) -> None:
        self.directory = directory / "w"
        for name in ("w/inc", "VC/include", "LLVM/bin"):
            (directory / name).mkdir(parents=True)
        self.drive = LocalDrive(clang_cl)
        program = directory / "LLVM/bin/clang-cl.exe"
        program.symlink_to(clang_cl)
        self._program = windows(program).encode()
        self._env = {
            b"VCToolsInstallDir": windows(directory / "VC").encode(),
            b"INCLUDE": windows(directory / "VC/include").encode(),
        }
        self.counters = Counters(str(directory / "counters"), now=lambda: 0.0)
        paths = Paths.from_env({"HPCC_DIR": str(directory / "home")})
        opened = open_windows_cache(
            *(self.drive, paths, Settings(), self.counters, SystemClock()),
            *(lambda _disk, _cwd: None, ""),
        )
        self.cache, self.store = opened
        self._counted: Counter[str] = Counter()

    def compile(self, *argv: str) -> str:
        """Compile; return `hit`, `miss` or the reason of a bypass. A miss must succeed."""
        words = tuple(a.encode() for a in argv)
        request = CompileRequest(
            argv=(b"clang-cl.exe", *words), compiler=self._program,
            cwd=windows(self.directory).encode(), env=self._env, umask=0, stderr_is_tty=False,
        )  # fmt: skip
        found = self.cache.begin(request, lambda: False)
        if isinstance(found, Done):
            return "hit"
        if isinstance(found, Exec):
            return found.reason
        assert isinstance(found, Run)
        done = self.drive.run(found.argv, self._env, request.cwd)
        self.drive.runs += 1
        report = RunReport(done.exit_code, 0, done.stdout, done.stderr, is_truncated=False)
        self.cache.finish(found, report)
        assert done.exit_code == 0, done
        return "miss"

    def bare(self, *argv: str) -> ProgramOutput:
        """Compile without the cache."""
        words = (self._program, *(a.encode() for a in argv))
        return self.drive.run(words, self._env, windows(self.directory).encode())

    def counted(self) -> dict[str, int]:
        """Return what was counted since the last time."""
        now = Counter(self.counters.snapshot())
        new = now - self._counted
        self._counted = now
        return {name: n for name, n in new.items() if name.startswith(_OUTCOMES)}

    def close(self) -> None:
        self.counters.close()
