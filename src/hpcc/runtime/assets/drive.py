"""The agent drive: an interpreter with its own loader and libraries, so that any image works."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.runtime.assets.agent_files import PACKAGES as _PACKAGES
from hpcc.runtime.assets.agent_files import own_files as _own_files
from hpcc.runtime.assets.agent_files import package_files
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.host.tools import ToolError, key_of, run_tool, sha256_of

# Part of the key. Raise it when this file changes what it builds.
FORMAT: Final = "3"
MOUNT_POINT: Final = "/.hpcc"
_LOADER: Final = re.compile(r"\s*(/\S*/ld-linux[^\s/]*)")
_LIBRARY: Final = re.compile(r"=> (/\S+)")
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


async def drive_key(init: Path) -> str:
    """Return a key for everything that the drive's content depends on.

    It reads each file that would be copied: a library of the host that is upgraded, such as
    OpenSSL's, must reach the guests.

    Raises:
        ToolError: a tool or a package of the agent is missing, or this interpreter cannot be
            copied.
    """
    files = await _files(init)
    parts = [FORMAT, sys.version, await _version("mkfs.erofs"), await _version("strip")]
    digests = await asyncio.to_thread(lambda: [sha256_of(path) for path in files.values()])
    for name, digest in zip(files, digests, strict=True):
        parts += [name, digest]
    return key_of(parts)


async def build_drive(target: Path, init: Path) -> None:
    """Write the drive as a read-only erofs image.

    Raises:
        ToolError: a tool is missing, or this interpreter cannot be copied.
    """
    stage = target.parent / "drive"
    files = await _files(init)
    await in_thread(lambda: _copy(files, stage))
    await _compile(stage)
    if shutil.which("strip"):
        for file in (stage / "bin/python3", *_native(stage.rglob("*"))):
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


async def _version(tool: str) -> str:
    return await run_tool(tool, "--version") if shutil.which(tool) else "absent"


async def _files(init: Path) -> Mapping[str, Path]:
    """Return the file behind each name on the drive, sorted by name."""
    files = await asyncio.to_thread(lambda: dict(_program_files(init)))
    programs = [_interpreter(), *_native(files.values())]
    files |= await _libraries(programs)
    return dict(sorted(files.items()))


def _program_files(init: Path) -> Iterator[tuple[str, Path]]:
    yield "bin/python3", _interpreter()
    yield "bin/hpcc-init", init
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
    for name, path in _stdlib_files():
        yield f"{library}/{name}", path
    for package in _PACKAGES:
        for name, path in package_files(package):
            yield f"site/{name}", path
    for name, path in _own_files():
        yield f"site/{name}", path


def _stdlib_files() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    for directory, directories, names in os.walk(root):
        directories[:] = [name for name in directories if not _is_left_out(name)]
        for name in names:
            if not _is_left_out(name):
                path = Path(directory, name)
                yield path.relative_to(root).as_posix(), path
    for path in Path(sysconfig.get_config_var("DESTSHARED")).glob("*.so"):
        if not _SKIP_EXTENSION.search(path.name):
            yield f"lib-dynload/{path.name}", path


def _is_left_out(name: str) -> bool:
    return (
        name in _SKIP or name.startswith("config-3") or name.endswith((".exe", ".pyc", ".a", ".so"))
    )


def _native(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.name.endswith(".so") or ".so." in path.name)


async def _libraries(programs: Iterable[Path]) -> Mapping[str, Path]:
    """Return the shared libraries that any of these files needs, and the loader."""
    text = await run_tool("ldd", *map(str, programs))
    files: dict[str, Path] = {}
    loader: Path | None = None
    for line in text.splitlines():
        match = _LIBRARY.search(line) or _LOADER.match(line)
        if match is None:
            continue
        path = Path(match[1])
        files.setdefault(f"lib/{path.name}", path)
        if _LOADER.fullmatch(str(path)):
            loader = path
    if loader is None:
        raise ToolError(
            "this Python does not use glibc's loader, which the agent drive needs;"
            " run hpcc with the distribution's python3"
        )
    # The guest's init uses this one name on every architecture.
    return {**files, "lib/hpcc-ld.so": loader}


def _copy(files: Mapping[str, Path], stage: Path) -> None:
    for name, path in files.items():
        target = stage / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (stage / "bin/hpcc-init").chmod(0o755)


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
