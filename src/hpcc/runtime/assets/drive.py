"""The agent drive: an interpreter with its own loader and libraries, so that any image works."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import sysconfig
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from hpcc.runtime.assets.agent_files import PACKAGES as _PACKAGES
from hpcc.runtime.assets.agent_files import own_files as _own_files
from hpcc.runtime.assets.agent_files import package_files
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.host.tools import ToolError, key_of, run_tool, sha256_of

# Part of the key. Raise it when this file changes what it builds.
FORMAT: Final = "2"
MOUNT_POINT: Final = "/.hpcc"
_LOADER: Final = re.compile(r"\s*(/\S*/ld-linux[^\s/]*)")
_LIBRARY: Final = re.compile(r"=> (/\S+)")
_DISTRIBUTIONS: Final = (
    "grpclib", "h2", "hpack", "hyperframe", "multidict", "protobuf", "typing_extensions",
)  # fmt: skip
_SKIP: Final = frozenset(
    {
        "test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data",
        "unittest", "venv", "dbm", "curses", "sqlite3", "wsgiref", "xmlrpc", "__pycache__",
        "site-packages",
        "dist-packages", "_pyrepl", "__phello__", "turtle.py", "antigravity.py", "this.py",
        "sitecustomize.py", "lib-dynload",
    }
)  # fmt: skip
_SKIP_EXTENSION: Final = re.compile(
    r"_test|_tkinter|_dbm|_gdbm|readline|_curses|_sqlite3|xxlimited|xxsub|_codecs_|_crypt\b|nis\b"
    r"|ossaudio|audioop|_lsprof|_interp|_remote_debugging"
)


def drive_key(init: Path) -> str:
    """Return a key for everything that the drive's content depends on.

    Raises:
        ToolError: a package of the agent is not installed.
    """
    parts = [FORMAT, sys.version, sha256_of(_interpreter()), sha256_of(init)]
    for name in _DISTRIBUTIONS:
        parts += [name, _version(name)]
    for relative, path in _own_files():
        parts += [relative, sha256_of(path)]
    return key_of(parts)


async def build_drive(target: Path, init: Path) -> None:
    """Write the drive as a read-only erofs image.

    Raises:
        ToolError: a tool is missing, or this interpreter cannot be copied.
    """
    stage = target.parent / "drive"
    await in_thread(lambda: _copy(stage, init))
    await _copy_libraries(stage)
    await _compile(stage)
    if shutil.which("strip"):
        for file in _native_files(stage):
            with suppress(ToolError):  # some are already stripped, or not ELF
                await run_tool("strip", "--strip-unneeded", str(file))
    await run_tool(
        "mkfs.erofs", "--quiet", "-zlz4hc", "-C65536", "-T0", "--all-root",
        "-U00000000-0000-0000-0000-000000000000", str(target), str(stage),
        remedy="apt-get install erofs-utils",
    )  # fmt: skip


def _interpreter() -> Path:
    # In a virtual environment sys.executable is a link to this one.
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _copy(stage: Path, init: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = stage / "lib" / version
    (stage / "bin").mkdir(parents=True)
    shutil.copy(_interpreter(), stage / "bin/python3")
    shutil.copy(init, stage / "bin/hpcc-init")
    (stage / "bin/hpcc-init").chmod(0o755)
    _copy_stdlib(Path(sysconfig.get_path("stdlib")), library)
    site = stage / "site"
    site.mkdir()
    for package in _PACKAGES:
        _copy_package(package, site)
    for relative, path in _own_files():
        (site / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, site / relative)


def _copy_stdlib(source: Path, target: Path) -> None:
    def skip(_: str, names: list[str]) -> list[str]:
        return [
            n for n in names
            if n in _SKIP or n.startswith("config-3") or n.endswith((".exe", ".pyc", ".a", ".so"))
        ]  # fmt: skip

    shutil.copytree(source, target, ignore=skip)
    dynamic = target / "lib-dynload"
    dynamic.mkdir()
    for path in sorted(Path(sysconfig.get_config_var("DESTSHARED")).glob("*.so")):
        if not _SKIP_EXTENSION.search(path.name):
            shutil.copy(path, dynamic / path.name)


def _copy_package(package: str, site: Path) -> None:
    for name, path in package_files(package):
        target = site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _native_files(stage: Path) -> list[Path]:
    return [stage / "bin/python3", *sorted(stage.rglob("*.so")), *sorted(stage.rglob("*.so.*"))]


async def _copy_libraries(stage: Path) -> None:
    """Copy the shared libraries that any file on the drive needs, and the loader."""
    library = stage / "lib"
    todo, seen = _native_files(stage), set[str]()
    loader: Path | None = None
    while todo:
        text = await run_tool("ldd", str(todo.pop()))
        for line in text.splitlines():
            match = _LIBRARY.search(line) or _LOADER.match(line)
            if match is None or Path(match[1]).name in seen:
                continue
            path = Path(match[1])
            seen.add(path.name)
            await in_thread(partial(shutil.copy, path, library / path.name))
            todo.append(library / path.name)
            if _LOADER.fullmatch(str(path)):
                loader = path
    if loader is None:
        raise ToolError(
            "this Python does not use glibc's loader, which the agent drive needs;"
            " run hpcc with the distribution's python3"
        )
    # The guest's init uses this one name on every architecture.
    await in_thread(partial(shutil.copy, loader, library / "hpcc-ld.so"))


async def _compile(stage: Path) -> None:
    """Byte-compile and drop the sources: no compilation in the guest, and half the size.

    A separate process does it, because this process's objects and hash seed would change the bytes.
    """
    await run_tool(
        str(_interpreter()), "-s", "-S", "-m", "compileall", "-qq", "-b", "-o0",
        "-s", str(stage), "-p", MOUNT_POINT, "--invalidation-mode", "unchecked-hash", str(stage),
        cwd=stage, env={"PYTHONHASHSEED": "0", "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    await in_thread(lambda: _drop_sources(stage))


def _drop_sources(stage: Path) -> None:
    for path in list(stage.rglob("*.py")):
        if path.with_suffix(".pyc").exists():
            path.unlink()
    for path in list(stage.rglob("__pycache__")):
        shutil.rmtree(path)
