"""The files of one compile: puts inputs in and reads outputs that a hostile program wrote."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import stat
from typing import Final

from hpcc.agent.base.ending import Output, OutputTreeError
from hpcc.agent.linux.links import TreeLinks
from hpcc.core import MAX_OUTPUT_ENTRIES, CallerError, ExecRequest, check_guest_path

_FILES_PER_TURN: Final = 64
# Listing a directory holds a descriptor for each level.
_MAX_DEPTH: Final = 64
_OPEN_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO planted under an output's name must not stop the agent.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


async def stage(root: str, request: ExecRequest, links: TreeLinks, uid: int) -> None:
    """Make the source tree of `request` under `root`: directories of `uid`, and links to blobs.

    Raises:
        OSError: it does not fit.
        IntegrityError: a cached blob is damaged.
    """
    os.mkdir(root, 0o755)
    os.chown(root, uid, uid)
    made = {""}
    outputs = [os.path.dirname(p) for p in (*request.outputs, *request.output_directories)]
    created = [d for d in request.output_directories if d not in request.outputs]
    for directory in [request.cwd, *outputs, *created]:
        _make_dirs(root, directory, made, uid)
    written = frozenset(request.outputs)
    below = tuple(f"{directory}/" for directory in request.output_directories)
    for number, file in enumerate(request.inputs):
        path = file.path
        directory = path.rpartition("/")[0]
        if directory not in made:
            _make_dirs(root, directory, made, uid)
        is_output = path in written or path.startswith(below)
        put = links.copy if is_output else links.place
        put(file.digest, f"{root}/{path}", is_executable=file.is_executable, uid=uid)
        if number % _FILES_PER_TURN == 0:
            await asyncio.sleep(0)


def _make_dirs(root: str, path: str, made: set[str], uid: int) -> None:
    if path in made:
        return
    _make_dirs(root, os.path.dirname(path), made, uid)
    os.mkdir(f"{root}/{path}", 0o755)
    os.chown(f"{root}/{path}", uid, uid)
    made.add(path)


def open_outputs(root: str, paths: tuple[str, ...]) -> list[Output]:
    """Open those declared outputs that are regular files; the caller closes them.

    No link is followed at any level, so all that is read is below `root`.
    """
    found: list[Output] = []
    for path in paths:
        fd = _open_beneath(root, path)
        if fd is None:
            continue
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            found.append(Output(path, fd, status.st_size, bool(status.st_mode & 0o100)))
        else:
            os.close(fd)
    return found


def list_directories(root: str, paths: tuple[str, ...]) -> list[Output]:
    """List the output directories that exist, with everything below them, parents first.

    Directories have a path that ends with "/", and size 0. Files are not open (`fd` is -1),
    because there may be more of them than descriptors: `open_listed` opens each when it is sent.
    No process runs any more, so both see the same files.

    Raises:
        OutputTreeError: an entry is neither file nor directory, there are too many entries, or a
            name cannot be sent.
    """
    found: list[Output] = []
    for path in paths:
        fd = _open_beneath(root, path, _OPEN_DIR)
        if fd is None:
            continue
        try:
            _list(fd, path, found)
        finally:
            os.close(fd)
    return found


def _list(fd: int, path: str, found: list[Output]) -> None:
    if len(found) >= MAX_OUTPUT_ENTRIES or path.count("/") >= _MAX_DEPTH:
        raise OutputTreeError(f"{path[:80]!r}: too many entries, or too deep")
    found.append(Output(f"{path}/", -1, 0, is_executable=False))
    with os.scandir(fd) as entries:
        for entry in entries:
            name = f"{path}/{entry.name}"
            try:
                check_guest_path(name)
            except CallerError as error:
                raise OutputTreeError(str(error)) from error
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                below = os.open(entry.name, _OPEN_DIR, dir_fd=fd)
                try:
                    _list(below, name, found)
                finally:
                    os.close(below)
            elif not stat.S_ISREG(status.st_mode):
                raise OutputTreeError(f"{name[:80]!r} is neither a file nor a directory")
            elif len(found) >= MAX_OUTPUT_ENTRIES:
                raise OutputTreeError("too many files in output directories")
            else:
                is_executable = bool(status.st_mode & 0o100)
                found.append(Output(name, -1, status.st_size, is_executable))


def open_listed(root: str, output: Output) -> int:
    """Open a file that `list_directories` found; the caller closes it.

    Raises:
        OSError: it cannot be read.
    """
    fd = _open_beneath(root, output.path, _OPEN_FILE)
    if fd is None:
        raise OSError(f"{output.path[:80]!r} cannot be opened")
    return fd


def _open_beneath(root: str, path: str, flags: int = _OPEN_FILE) -> int | None:
    *parents, name = path.split("/")
    at = os.open(root, _OPEN_DIR)
    try:
        for part in parents:
            below = os.open(part, _OPEN_DIR, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, flags, dir_fd=at)
    except OSError:
        return None
    finally:
        os.close(at)


def remove_tree(root: str) -> None:
    """Remove a directory with everything that a hostile program left below it.

    The tree may be deeper than a path can be long and than descriptors exist, so directories are
    moved up before they are emptied. `shutil.rmtree` holds one descriptor for each level.
    """
    prefix, count = secrets.token_hex(16), itertools.count()
    at = os.open(root, _OPEN_DIR)
    try:
        while below := _clear(at):
            for name in below:
                fd = os.open(name, _OPEN_DIR, dir_fd=at)
                try:
                    for deeper in _clear(fd):
                        new = f"{prefix}{next(count)}"
                        os.rename(deeper, new, src_dir_fd=fd, dst_dir_fd=at)
                finally:
                    os.close(fd)
                os.rmdir(name, dir_fd=at)
    finally:
        os.close(at)
    os.rmdir(root)


def _clear(directory_fd: int) -> list[str]:
    """Unlink all entries that are not directories; return the names of the directories."""
    with os.scandir(directory_fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory_fd)
    return [name for name, is_directory in found if is_directory]
