r"""A client with Windows paths around the real clang-cl, on any system.

The drive Z: is this machine's root, as under Wine. `cl.exe` is clang-cl with cl's messages: a
report in JSON, notes in German.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpcc.cache.base.api import CompileRequest, Done, RemoteClient
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.tools import ProgramOutput
from hpcc.cache.farm import FarmCache
from hpcc.cache.remote.cl_client import ImageResults, Outputs, cl_client
from hpcc.cache.remote.cl_plan import ClCompile, ClJob, ClPlan
from hpcc.cache.results.records import Records, make_records
from hpcc.cache.results.results import Results
from hpcc.cache.root.build_identity import Builds
from hpcc.cache.windows.notes import FarmRecords
from hpcc.config.settings import RemoteSettings
from hpcc.core import WindowsPath, parse_windows_path
from hpcc.core.basis import FarmTerms
from hpcc.store.private import PrivateStore
from hpcc_testkit.windows.image import OF_CL

ENGLISH, GERMAN = b"Note: including file:", "Hinweis: Einlesen der Datei:".encode("cp850")
SOURCE = '#include "h.h"\nint f(void) { return X; }\n'


def posix(text: str) -> str:
    r"""Replace `Z:\a\b` anywhere in an argument with this machine's file, ignoring case."""
    head, drive, tail = text.partition("Z:\\")
    if not drive:
        return text
    path = Path("/")
    for part in filter(None, tail.split("\\")):
        there = {p.name.lower(): p for p in path.iterdir()} if path.is_dir() else {}
        path = path / part if (path / part).exists() else there.get(part.lower(), path / part)
    return f"{head}{path}/" if tail.endswith("\\") else f"{head}{path}"


@dataclass
class Drive:
    """A `Machine` whose drive Z: is this machine's root; `msc_version` is that of its cl."""

    clang_cl: Path
    msc_version: str = "193833130"
    encoding: str = "cp850"

    def run(self, argv: Sequence[bytes], env: Mapping[bytes, bytes], cwd: bytes) -> ProgramOutput:
        program, *words = [posix(a.decode()) for a in argv]
        is_cl = program.endswith("cl.exe") and not program.endswith("clang-cl.exe")
        report = ""
        if is_cl and "-EP" in words:
            about = f"HPCC_PROBE cl {self.msc_version}\r\nHPCC_BUILD 0\r\nHPCC_TARGET x64\r\n"
            return ProgramOutput(0, about.encode(), b"v.c\r\n")
        if is_cl and "-sourceDependencies" in words:
            at = words.index("-sourceDependencies")
            report = words[at + 1]
            words[at : at + 2] = ["-showIncludes"]
        words = [w for w in words if not (is_cl and OF_CL.match(w))]
        done = subprocess.run(
            [self.clang_cl, *words], cwd=posix(cwd.decode()), capture_output=True, check=False,
            env={n.decode(): v.decode() for n, v in env.items()}, timeout=60,
        )  # fmt: skip
        out = re.sub(
            rb"(: +)(/.*)", lambda m: m[1] + b"Z:" + m[2].replace(b"/", b"\\"), done.stdout
        )
        if report:
            names = [n.partition(b": ")[2].strip() for n in out.replace(ENGLISH, b":").splitlines()]
            data = {"Source": "x.c", "Includes": [n.decode().lower() for n in names]}
            Path(report).write_text(json.dumps({"Version": "1.1", "Data": data}))
            out = b""
        return ProgramOutput(done.returncode, out.replace(ENGLISH, GERMAN), done.stderr)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as name:
            yield "Z:" + name.replace("/", "\\")

    def read(self, path: str, limit: int) -> bytes | None:
        file = Path(posix(path))
        return file.read_bytes() if file.is_file() and file.stat().st_size <= limit else None

    def write(self, path: str, data: bytes) -> None:
        Path(posix(path)).write_bytes(data)

    def real(self, path: str) -> str:
        return "Z:" + os.path.realpath(posix(path)).replace("/", "\\")

    def state(self, path: str) -> str | None:
        return path if "bin" in path or Path(posix(path)).exists() else None


def checkout(directory: Path, include: str = "inc", source: str = "x.c") -> WindowsPath:
    """Write a project of one source and one header; return its root."""
    (directory / include).mkdir(parents=True)
    (directory / include / "h.h").write_text("#define X 3\n")
    (directory / source).write_text(SOURCE)
    return parse_windows_path("Z:" + str(directory).replace("/", "\\"))


def request_in(
    root: WindowsPath, *argv: str, program: str = "cl.exe", **env: str
) -> CompileRequest:
    """Return a compile in `root`; `ROOT` in arguments becomes the root."""
    path = f"Z:\\VC\\bin\\{program}"
    return CompileRequest(
        argv=(program.encode(), *(a.replace("ROOT", str(root)).encode() for a in argv)),
        compiler=path.encode(), cwd=str(root).encode(),
        env={n.encode(): v.encode() for n, v in env.items()}, umask=0, stderr_is_tty=False,
    )  # fmt: skip


def client_of(
    remote: RemoteClient,
    drive: Drive,
    counters: Counters,
    settings: RemoteSettings | None = None,
    monotonic: Callable[[], float] = lambda: 0.0,
    records: Records | None = None,
    images: ImageResults | None = None,
) -> FarmCache[ClCompile, ClJob, ClPlan]:
    """Build the farm cache of a Windows client; without `images` it keeps no result."""
    settings = settings or RemoteSettings()
    records = records or records_in(Path(tempfile.mkdtemp()), counters)
    client = cl_client(drive, FarmRecords(records), images or _KeepsNothing(drive))
    return FarmCache(remote, client, counters, settings, monotonic)


class _KeepsNothing:
    """`ImageResults` without a store."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive

    def write(self, path: str, data: bytes) -> None:
        self._drive.write(path, data)

    def stored(self, job: ClJob, terms: FarmTerms) -> Done | None:
        del job, terms
        return None

    def keep(self, job: ClJob, plan: ClPlan, done: Done, basis: str, outputs: Outputs) -> None:
        del job, plan, done, basis, outputs


def records_in(directory: Path, counters: Counters) -> Records:
    """Build what a client writes about its compiles, as its daemon does."""
    store = PrivateStore(
        str(directory / "store"), max_size_bytes=1 << 20, max_entry_bytes=1 << 20,
        now=time.time, count=counters.add,
    )  # fmt: skip
    results = Results(store, FileMemo(time.time_ns), counters)
    builds = Builds(counters.add, time.monotonic, lambda cwd: cwd)
    return make_records(str(directory), results, counters, builds)


REPORTED = ("/sourceDependencies", "ROOT\\x.json")
ARGV = ("/nologo", "/c", "/O1", "/IROOT\\inc", "/FoROOT\\X.obj", "ROOT\\x.c")
