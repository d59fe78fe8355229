"""The files of one compile: puts inputs in and reads outputs that a hostile program wrote."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
from collections.abc import Callable, Iterable
from typing import Final

from hpcc.agent.base.ending import Output, OutputTreeError
from hpcc.agent.linux.linked_file import LinkedFile
from hpcc.agent.linux.links import TreeLinks
from hpcc.agent.linux.removal import OPEN_DIRECTORY
from hpcc.core import MAX_OUTPUT_ENTRIES, CallerError, ExecRequest, InputFile, check_guest_path

_FILES_PER_TURN: Final = 64
# Listing a directory holds a descriptor for each level.
_MAX_DEPTH: Final = 64
# O_NONBLOCK: a FIFO planted under an output's name must not stop the agent.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


async def stage(root: str, request: ExecRequest, links: TreeLinks, uid: int) -> None:
    """Make the source tree of `request` under `root`: directories of `uid`, and links to blobs.

    A directory's files come before the directories in it, so that the order of names is the same
    in a kept directory.

    Raises:
        OSError: it does not fit.
        IntegrityError: a cached blob is damaged.
    """
    outputs = [os.path.dirname(p) for p in (*request.outputs, *request.output_directories)]
    created = [d for d in request.output_directories if d not in request.outputs]
    files: dict[str, list[InputFile]] = {}
    for file in request.inputs:
        files.setdefault(file.path.rpartition("/")[0], []).append(file)
    is_output, count = _outputs_of(request), itertools.count()
    empty = request.input_directories
    for directory in _top_down([request.cwd, *outputs, *created, *files, *empty]):
        here, at = tuple(files.get(directory, ())), f"{root}/{directory}"
        if here and links.take(directory, here, at, uid):
            continue
        os.mkdir(at, 0o755)
        os.chown(at, uid, uid)
        placed: list[LinkedFile] = []
        try:
            for file in here:
                put = links.copy if is_output(file.path) else links.place
                link = put(
                    file.digest, f"{root}/{file.path}", is_executable=file.is_executable, uid=uid
                )
                if link is not None:
                    placed.append(link)
                if next(count) % _FILES_PER_TURN == 0:
                    await asyncio.sleep(0)
        finally:
            links.made(directory, here, placed)
    links.complete(root)


def _outputs_of(request: ExecRequest) -> Callable[[str], bool]:
    """Return whether the compile may write to a path."""
    written = frozenset(request.outputs)
    below = tuple(f"{directory}/" for directory in request.output_directories)
    return lambda path: path in written or path.startswith(below)


def _top_down(directories: Iterable[str]) -> Iterable[str]:
    """Return directories with all above them, each once and after those above it."""
    found: dict[str, None] = {"": None}
    for path in directories:
        above, missing = path, []
        while above not in found:
            missing.append(above)
            above = above.rpartition("/")[0]
        found.update(dict.fromkeys(reversed(missing)))
    return found


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
        fd = _open_beneath(root, path, OPEN_DIRECTORY)
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
                below = os.open(entry.name, OPEN_DIRECTORY, dir_fd=fd)
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
    at = os.open(root, OPEN_DIRECTORY)
    try:
        for part in parents:
            below = os.open(part, OPEN_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, flags, dir_fd=at)
    except OSError:
        return None
    finally:
        os.close(at)
