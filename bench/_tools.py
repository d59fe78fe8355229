"""The compared tools, each with a separate cache, server and settings.

A fair comparison needs this:

- ccache runs with its defaults (direct mode, inode cache). The bench names an empty configuration
  file, so that neither the machine's nor the user's file applies.
- sccache runs with its defaults and a private server with its own socket and directory. The server
  is a child of the bench, so that its CPU time can be read. It has no command to empty its cache,
  so clearing it means restarting it. (With `-MD -MF` its hits run the preprocessor, in 0.10.0 and
  with its preprocessor cache on, which is the default. The figures contain that cost.)
- hpcc runs with a private daemon, whose CPU time counts in the same way.
- Server and daemon have compiled something before a measurement starts. A cold build measures
  compiles, not a server's first look at the compiler. A separate row with `FreshHpcc` measures
  that first look.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from _measure import BenchError, run, tree_seconds

HPCC: Final = Path(sys.executable).parent / "hpcc"
BARE: Final = "bare"
OURS: Final = "hpcc"
FRESH: Final = "hpcc, new daemon"
_SERVER_START_SECONDS: Final = 20.0
_IGNORED_PREFIXES: Final = ("CCACHE_", "SCCACHE_", "HPCC_", "MAKE", "MFLAGS")


class Counts(NamedTuple):
    """Hits and misses as a tool reports them, or as a row of the bench expects them."""

    hits: int
    misses: int

    def since(self, before: Counts) -> Counts:
        return Counts(self.hits - before.hits, self.misses - before.misses)

    def plus(self, other: Counts) -> Counts:
        return Counts(self.hits + other.hits, self.misses + other.misses)


def count_notes(done: Mapping[str, Counts], expected: Counts) -> list[str]:
    """Return notes for the reader of a row: the tools whose hits and misses are not as expected."""
    return [
        f"{name} had {found.hits} hits and {found.misses} misses,"
        f" not {expected.hits} and {expected.misses}"
        for name, found in done.items()
        if found != expected
    ]


class Tool:
    """The bare compiler; the base of the others."""

    name = BARE

    def __init__(self, base_env: Mapping[str, str]) -> None:
        self.env = dict(base_env)
        self.prefix: tuple[str, ...] = ()

    def program(self) -> str:
        """Return the measured program with its version."""
        return "the compiler itself"

    def start(self) -> None:
        """Prepare to compile."""

    def stop(self) -> None:
        """End all started processes."""

    def clear(self) -> None:
        """Delete all results."""

    def counts(self) -> Counts:
        return Counts(0, 0)

    def server_seconds(self) -> float:
        return 0.0


class Ccache(Tool):
    name = "ccache"

    def __init__(self, base_env: Mapping[str, str], scratch: Path) -> None:
        super().__init__(base_env)
        self.prefix = (_found("ccache"),)
        settings = scratch / "ccache.conf"
        settings.touch()
        self._cwd = scratch
        self.env |= {"CCACHE_DIR": str(scratch / "ccache"), "CCACHE_CONFIGPATH": str(settings)}

    def program(self) -> str:
        return run([*self.prefix, "--version"], self.env, self._cwd).splitlines()[0]

    def clear(self) -> None:
        run([*self.prefix, "--clear"], self.env, self._cwd)

    def counts(self) -> Counts:
        lines = run([*self.prefix, "--print-stats"], self.env, self._cwd).splitlines()
        found = dict(line.split("\t")[:2] for line in lines if "\t" in line)
        hits = int(found["direct_cache_hit"]) + int(found["preprocessed_cache_hit"])
        return Counts(hits, int(found["cache_miss"]))


class Sccache(Tool):
    name = "sccache"

    def __init__(self, base_env: Mapping[str, str], scratch: Path) -> None:
        super().__init__(base_env)
        self.prefix = (_found("sccache"),)
        self._home = scratch / "sccache"
        self._home.mkdir()
        self._server: subprocess.Popen[bytes] | None = None
        self._place: tempfile.TemporaryDirectory[str] | None = None
        self.env |= {
            "SCCACHE_DIR": str(self._home / "cache"),
            "SCCACHE_CONF": str(self._home / "none.toml"),
            "SCCACHE_IDLE_TIMEOUT": "0",
        }

    def program(self) -> str:
        return run([*self.prefix, "--version"], self.env, self._home).strip()

    def start(self) -> None:
        # A socket path holds 107 bytes, and a scratch directory's path may be longer.
        self._place = tempfile.TemporaryDirectory(prefix="hpcc-bench-")
        socket = Path(self._place.name, "s")
        self.env["SCCACHE_SERVER_UDS"] = str(socket)
        env = self.env | {"SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"}
        self._server = subprocess.Popen(
            self.prefix, env=env, cwd=self._home, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + _SERVER_START_SECONDS
        while not socket.exists():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise BenchError("sccache's server does not start")
            time.sleep(0.02)
        get_to_know(self, self._home)

    def stop(self) -> None:
        if self._server is None or self._place is None:
            return
        try:
            run([*self.prefix, "--stop-server"], self.env, self._home, seconds=20)
            self._server.wait(20)
        except (BenchError, subprocess.TimeoutExpired):
            self._server.kill()
            self._server.wait()
        self._server = None
        self._place.cleanup()

    def clear(self) -> None:
        self.stop()
        shutil.rmtree(self._home / "cache", ignore_errors=True)
        self.start()

    def counts(self) -> Counts:
        text = run([*self.prefix, "--show-stats", "--stats-format=json"], self.env, self._home)
        stats = json.loads(text)["stats"]
        hits, misses = stats["cache_hits"]["counts"], stats["cache_misses"]["counts"]
        return Counts(sum(hits.values()), sum(misses.values()))

    def server_seconds(self) -> float:
        return tree_seconds(self._server.pid if self._server else None)


class Hpcc(Tool):
    name = OURS

    def __init__(self, base_env: Mapping[str, str], scratch: Path, launcher: Path = HPCC) -> None:
        super().__init__(base_env)
        self.prefix = (str(launcher),)
        self._home = scratch / self.name.replace(", ", "-").replace(" ", "-")
        self._home.mkdir()
        self._pid: int | None = None
        self.env["HPCC_DIR"] = str(self._home)

    def program(self) -> str:
        return self.command("--version").strip()

    def command(self, *args: str) -> str:
        return run([*self.prefix, *args], self.env, self._home)

    def daemon_pid(self) -> int:
        return int(json.loads(self.command("status", "--json"))["pid"])

    def start(self) -> None:
        self.command("start")
        self._pid = self.daemon_pid()
        get_to_know(self, self._home)

    def stop(self) -> None:
        with suppress(BenchError):  # there may be none
            run([*self.prefix, "stop"], self.env, Path("/"))
        self._pid = None

    def clear(self) -> None:
        self.command("clean")

    def counts(self) -> Counts:
        stats = json.loads(self.command("stats", "--json"))
        return Counts(int(stats.get("hit.local", 0)), int(stats.get("miss.local", 0)))

    def server_seconds(self) -> float:
        return tree_seconds(self._pid)


class FreshHpcc(Hpcc):
    """hpcc as on the first build of the day: the build's first compile starts the daemon.

    All CPU time of the daemon counts: starting Python, asking the compiler, hashing its programs.
    """

    name = FRESH

    def start(self) -> None:
        """Do nothing: the build starts the daemon."""

    def clear(self) -> None:
        self.stop()
        shutil.rmtree(self._home)
        self._home.mkdir()

    def server_seconds(self) -> float:
        if not (self._home / "run" / "daemon.sock").exists():
            return 0.0
        return tree_seconds(self.daemon_pid())


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise FileNotFoundError(program)
    return path


def get_to_know(tool: Tool, directory: Path) -> None:
    """Compile a line of C and of C++ through a tool, so that its server knows the compilers."""
    for compiler, name in (("gcc", "know.c"), ("g++", "know.cc")):
        (directory / name).write_text("int know(void);\n")
        run([*tool.prefix, compiler, "-c", name, "-o", f"{name}.o"], tool.env, directory)


def clean_env() -> dict[str, str]:
    """Return an environment with only the variables that a build needs."""
    path = without_masks(os.environ["PATH"])
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C"}


def callers_env() -> dict[str, str]:
    """Return the caller's environment without settings of the compared tools."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_IGNORED_PREFIXES)}
    return kept | {"PATH": without_masks(os.environ["PATH"])}


def without_masks(path: str) -> str:
    """Return `PATH` without directories in which gcc is a cache's wrapper: bare must be bare."""

    def is_mask(directory: str) -> bool:
        return Path(directory, "gcc").resolve().name in {"ccache", "sccache", "hpcc"}

    return os.pathsep.join(part for part in path.split(os.pathsep) if not is_mask(part))


def installed(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the installed tools, and the reason for each missing one."""
    there, absent = [], {}
    for name in names:
        if name in {BARE, OURS, FRESH} or shutil.which(name):
            there.append(name)
        else:
            absent[name] = f"{name} is not installed (tools/bootstrap.sh packages bench)"
    return there, absent


@contextmanager
def running(
    names: Sequence[str],
    scratch: Path,
    *,
    launcher: Path = HPCC,
    base_env: Mapping[str, str] | None = None,
) -> Iterator[list[Tool]]:
    """Start the named tools; end all of them when the block ends."""
    env = clean_env() if base_env is None else base_env
    scratch.mkdir(parents=True, exist_ok=True)
    made: list[Tool] = []
    with ExitStack() as stack:
        for name in names:
            tool = _make(name, env, scratch, launcher)
            stack.callback(tool.stop)
            tool.start()
            made.append(tool)
        yield made


def _make(name: str, env: Mapping[str, str], scratch: Path, launcher: Path) -> Tool:
    if name == BARE:
        return Tool(env)
    if name in {OURS, FRESH}:
        return (Hpcc if name == OURS else FreshHpcc)(env, scratch, launcher)
    return (Ccache if name == Ccache.name else Sccache)(env, scratch)
