"""Five real projects, from the distribution's source packages.

Each is reduced to its compiles: our Makefile with the project's own flags and `-MD -MF`, no
configure, no link, so that all tools do the same work and a cold build stays short. A file is left
out only if it takes too long (a compile of 20 s among ones of a second makes every round noise), or
if it does not compile on this system.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from _measure import BenchError, SkipRow, run

ROOT: Final = Path(__file__).resolve().parent.parent
# Kept between runs; `make clean` removes it.
SOURCES: Final = ROOT / "bench/results/tmp/sources"
MAKEFILE: Final = "bench.mk"
_FETCH_SECONDS: Final = 300
_PREPARE_SECONDS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """`prepare` prepares an unpacked tree; `sources` and `flags` are relative to `subdir`."""

    name: str
    package: str
    shape: str
    subdir: str
    sources: Callable[[Path], list[str]]
    flags: str
    prepare: Callable[[Path], None] = lambda _: None

    def build(self, cc: str, cxx: str) -> list[str]:
        return ["make", "-f", MAKEFILE, "-j2", f"CC={cc}", f"CXX={cxx}"]


@dataclass(frozen=True, slots=True)
class Build:
    """A tree that can be built and cleaned in its `directory`, which is `root` or below it.

    Every word of the commands may hold {cc} and {cxx}.
    """

    name: str
    root: Path
    directory: Path
    build: tuple[str, ...]
    clean: tuple[str, ...]


def unpack(project: Project, directory: Path) -> Build:
    """Return a tree of the project that is ready to be built.

    Raises:
        SkipRow: the source package cannot be downloaded or prepared on this machine.
    """
    unpack_upstream(project.package, directory)
    try:
        project.prepare(directory)
    except BenchError as error:
        raise SkipRow(f"{project.name} cannot be prepared: {error}") from error
    return _with_makefile(project, directory)


def unpack_upstream(package: str, directory: Path) -> None:
    """Unpack a package's upstream sources as they are.

    Raises:
        SkipRow: the source package cannot be downloaded on this machine.
    """
    with tarfile.open(_fetch(package)) as archive:
        # The name of the top directory varies, so it is stripped.
        for member in archive.getmembers():
            _, _, member.name = member.name.partition("/")
            if member.islnk():
                _, _, member.linkname = member.linkname.partition("/")
            if member.name:
                archive.extract(member, directory, filter="data")


def _fetch(package: str) -> Path:
    home = SOURCES / package
    if not (found := sorted(home.glob(f"{package}_*.orig.tar.*"))):
        script = str(ROOT / "tools/fetch_source.sh")
        try:
            done = subprocess.run(
                [script, "--upstream", package, str(home)], env={"PATH": os.environ["PATH"]},
                capture_output=True, timeout=_FETCH_SECONDS, check=False,
            )  # fmt: skip
            why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
        if not (found := sorted(home.glob(f"{package}_*.orig.tar.*"))):
            raise SkipRow(f"the source package {package} cannot be fetched: {why[:200]}")
    return found[0]


def _with_makefile(project: Project, root: Path) -> Build:
    directory = root / project.subdir
    sources = project.sources(directory)
    if not sources:
        raise SkipRow(f"{project.name}: this version has none of the files that the bench compiles")
    objects = " ".join(source.rpartition(".")[0] + ".o" for source in sources)
    (directory / MAKEFILE).write_text(
        f"CC = gcc\nCXX = g++\nFLAGS = {project.flags}\nOBJECTS = {objects}\n"
        "all: $(OBJECTS)\n"
        "%.o: %.c\n\t$(CC) $(FLAGS) -MD -MF $*.d -c $< -o $@\n"
        "%.o: %.cc\n\t$(CXX) $(FLAGS) -MD -MF $*.d -c $< -o $@\n"
        "%.o: %.cpp\n\t$(CXX) $(FLAGS) -MD -MF $*.d -c $< -o $@\n"
        "clean:\n\trm -f $(OBJECTS) $(OBJECTS:.o=.d)\n"
    )
    build = tuple(project.build("{cc}", "{cxx}"))
    return Build(project.name, root, directory, build, ("make", "-f", MAKEFILE, "clean"))


def _all_c(*skipped: str) -> Callable[[Path], list[str]]:
    return lambda at: sorted(p.name for p in at.glob("*.c") if p.name not in skipped)


def _json_examples(at: Path) -> list[str]:
    return sorted(p.name for p in at.glob("*.cpp"))[::26]


def _fmt_files(at: Path) -> list[str]:
    wanted = ["src/format.cc", "src/os.cc", "test/noexception-test.cc"]
    wanted += [f"test/static-export-test/{name}.cc" for name in ("library", "main")]
    wanted += sorted(f"test/fuzzing/{p.name}" for p in at.glob("test/fuzzing/*.cc"))
    # 20 s of compile time in one file.
    slow = "test/fuzzing/chrono-duration.cc"
    return [name for name in wanted if name != slow and (at / name).exists()]


def _make_release_header(tree: Path) -> None:
    env = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1700000000"}
    run(["sh", "./mkreleasehdr.sh"], env, tree / "src", seconds=_PREPARE_SECONDS)


def _generate_sqlite(tree: Path) -> None:
    """Run SQLite's build to generate parser and headers, with all sources in one directory."""
    env = {"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C"}
    run(["./configure", "--disable-tcl", "-q"], env, tree, seconds=_PREPARE_SECONDS)
    run(["make", ".target_source"], env, tree, seconds=_PREPARE_SECONDS)


_REDIS_LIBRARIES: Final = (
    "hiredis", "linenoise", "lua/src", "hdr_histogram", "fpconv", "fast_float",
)  # fmt: skip

PROJECTS: Final = (
    Project(
        name="Lua", package="lua5.4", shape="few small C files", subdir="src",
        sources=_all_c(), flags="-std=gnu99 -O2 -DLUA_USE_POSIX",
    ),
    Project(
        name="Redis", package="redis", shape="a hundred C files, most with 150 headers",
        subdir="src", prepare=_make_release_header,
        sources=_all_c("ae_epoll.c", "ae_evport.c", "ae_kqueue.c", "ae_select.c", "tls.c"),
        flags="-std=gnu11 -O1 -w -pthread -DREDIS_STATIC= "
        + " ".join(f"-I../deps/{name}" for name in _REDIS_LIBRARIES),
    ),
    Project(
        name="nlohmann-json", package="nlohmann-json3", shape="C++ around one huge header",
        subdir="docs/examples", sources=_json_examples,
        flags="-std=c++17 -O1 -w -I../../single_include",
    ),
    Project(
        name="fmt", package="fmtlib", shape="C++ with templates", subdir=".",
        sources=_fmt_files, flags="-std=c++17 -O1 -w -Iinclude",
    ),
    Project(
        name="SQLite", package="sqlite3", shape="a hundred C files around one large header",
        subdir="tsrc", prepare=_generate_sqlite,
        sources=_all_c(
            "tclsqlite.c", "fts3_icu.c", "icu.c", "mutex_w32.c", "os_win.c", "geopoly.c", "rtree.c",
            "shell.c",
        ),
        flags="-O1 -w -DSQLITE_CORE -DSQLITE_ENABLE_FTS3 -I.",
    ),
)  # fmt: skip
