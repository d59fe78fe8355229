"""The files of one compile on Windows: copies inputs in, reads outputs, removes everything.

The counterpart of `linux.tree` without directory descriptors, which Windows lacks: no process of
the program runs when this reads, and no link is followed. The functions run on any system, and so
do their tests; not yet tested on Windows.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import stat
import time
from typing import Final

from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.base.ending import Output, OutputTreeError
from hpcc.core import MAX_OUTPUT_ENTRIES, CallerError, ExecRequest, check_guest_path

_FILES_PER_TURN: Final = 16
_MAX_DEPTH: Final = 64
# A virus scanner or a process that is about to end may briefly keep a file open.
_BUSY_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.05
_BINARY: Final[int] = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
# winnt.h, FILE_ATTRIBUTE_…
_DIRECTORY, _REPARSE_POINT = 0x10, 0x400
# Only with this prefix Windows opens paths longer than MAX_PATH, and names that end with a dot.
_VERBATIM: Final = "\\\\?\\"


def verbatim(path: str) -> str:
    """Return a path that Windows takes literally, whatever a hostile program named its files."""
    return _VERBATIM + path if os.name == "nt" and not path.startswith(_VERBATIM) else path


def _at(root: str, path: str) -> str:
    return os.path.join(root, path.replace("/", os.sep))


async def stage(root: str, request: ExecRequest, blobs: BlobCache, chosen: frozenset[str]) -> None:
    """Make the source tree in `root`, an empty directory; `chosen` are the inputs to write.

    Raises:
        OSError: it does not fit.
        IntegrityError: a cached blob is damaged.
    """
    outputs = [os.path.dirname(p) for p in (*request.outputs, *request.output_directories)]
    created = [d for d in request.output_directories if d not in request.outputs]
    for directory in [request.cwd, *outputs, *created, *request.input_directories]:
        os.makedirs(_at(root, directory), exist_ok=True)
    for number, file in enumerate(f for f in request.inputs if f.path in chosen):
        os.makedirs(_at(root, os.path.dirname(file.path)), exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
        fd = os.open(_at(root, file.path), flags, 0o644)
        try:
            blobs.copy(file.digest, fd)
        finally:
            os.close(fd)
        if number % _FILES_PER_TURN == 0:
            await asyncio.sleep(0)


def open_outputs(root: str, paths: tuple[str, ...]) -> list[Output]:
    """Open those declared outputs that are regular files; the caller closes them."""
    found: list[Output] = []
    for path in paths:
        if not _is_plain(root, path):
            continue
        try:
            fd = _open_file(_at(root, path))
        except OSError:
            continue
        found.append(Output(path, fd, os.fstat(fd).st_size, is_executable=False))
    return found


def _is_plain(root: str, path: str) -> bool:
    """Return whether no part of the path is a link or a reparse point."""
    at = root
    for part in path.split("/"):
        at = os.path.join(at, part)
        try:
            status = os.lstat(at)
        except OSError:
            return False
        if _leads_elsewhere(status):
            return False
    return True


def _leads_elsewhere(status: os.stat_result) -> bool:
    return bool(_attributes(status) & _REPARSE_POINT) or stat.S_ISLNK(status.st_mode)


def _attributes(status: os.stat_result) -> int:
    attributes: int = getattr(status, "st_file_attributes", 0)
    return attributes


def _open_file(path: str) -> int:
    """Open a regular file that has only one name.

    Raises:
        OSError: it is something else, or has a second name (a hard link).
    """
    before = os.lstat(path)
    if not stat.S_ISREG(before.st_mode) or _leads_elsewhere(before) or before.st_nlink > 1:
        raise OSError(f"{os.path.basename(path)[:80]!r} is no plain file")
    fd = os.open(path, os.O_RDONLY | _BINARY | _NOFOLLOW)
    opened = os.fstat(fd)
    if not stat.S_ISREG(opened.st_mode) or opened.st_nlink > 1:
        os.close(fd)
        raise OSError(f"{os.path.basename(path)[:80]!r} is another file now")
    return fd


def list_directories(root: str, paths: tuple[str, ...]) -> list[Output]:
    """List the output directories that exist, with everything below them, parents first.

    Raises:
        OutputTreeError: an entry is neither file nor directory, there are too many entries, or a
            name cannot be sent.
    """
    found: list[Output] = []
    for path in paths:
        if _is_plain(root, path) and os.path.isdir(_at(root, path)):
            _list(root, path, found)
    return found


def _list(root: str, path: str, found: list[Output]) -> None:
    if len(found) >= MAX_OUTPUT_ENTRIES or path.count("/") >= _MAX_DEPTH:
        raise OutputTreeError(f"{path[:80]!r}: too many entries, or too deep")
    found.append(Output(f"{path}/", -1, 0, is_executable=False))
    for name in sorted(os.listdir(_at(root, path))):
        below = f"{path}/{name}"
        try:
            check_guest_path(below)
        except CallerError as error:
            raise OutputTreeError(str(error)) from error
        status = os.lstat(_at(root, below))
        if _leads_elsewhere(status):
            raise OutputTreeError(f"{below[:80]!r} leads elsewhere")
        if stat.S_ISDIR(status.st_mode):
            _list(root, below, found)
        elif not stat.S_ISREG(status.st_mode):
            raise OutputTreeError(f"{below[:80]!r} is neither a file nor a directory")
        elif len(found) >= MAX_OUTPUT_ENTRIES:
            raise OutputTreeError("too many files in output directories")
        else:
            found.append(Output(below, -1, status.st_size, is_executable=False))


def open_listed(root: str, output: Output) -> int:
    """Open a file that `list_directories` found; the caller closes it.

    Raises:
        OSError: it cannot be read.
    """
    return _open_file(_at(root, output.path))


async def clear(root: str, graveyard: str) -> None:
    """Move a directory away if it exists, and remove it with its content.

    Raises:
        OSError: something stayed in use. The guest must be given up, because the next compile
            would see it.
    """
    aside = os.path.join(graveyard, secrets.token_hex(16))
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            await asyncio.to_thread(_clear, root, aside)
        except OSError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


def _clear(root: str, aside: str) -> None:
    if os.path.lexists(root):
        os.rename(root, aside)
    if os.path.lexists(aside):
        _remove_tree(aside)


def _remove_tree(root: str) -> None:
    """Remove a tree of any depth: directories are moved up and emptied; no link is followed."""
    prefix, count = secrets.token_hex(16), itertools.count()
    while below := _unlink_files(root):
        for directory in below:
            for deeper in _unlink_files(directory):
                os.rename(deeper, os.path.join(root, f"{prefix}{next(count)}"))
            os.rmdir(directory)
    os.rmdir(root)


def _unlink_files(directory: str) -> list[str]:
    """Unlink all entries that are not directories; return the paths of the directories."""
    found: list[str] = []
    with os.scandir(directory) as entries:
        listed = [(e.path, e.stat(follow_symlinks=False)) for e in entries]
    for path, status in listed:
        if stat.S_ISDIR(status.st_mode) and not _leads_elsewhere(status):
            found.append(path)
        elif _attributes(status) & _DIRECTORY:
            os.rmdir(path)  # a junction: removes the name and keeps its target
        else:
            _unlink(path, is_plain=stat.S_ISREG(status.st_mode))
    return found


def _unlink(path: str, *, is_plain: bool) -> None:
    try:
        os.unlink(path)
    except PermissionError:
        if not is_plain:
            raise
        os.chmod(path, stat.S_IWRITE)  # read-only files cannot be unlinked on Windows
        os.unlink(path)
