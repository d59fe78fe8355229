"""Compares the sources of a row with a checkout or a commit: which files have the guest's bytes.

Only contents count. A link in the checkout is followed, as the compiler followed it.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from hpcc.compilers.invocation.guest import (
    BUILD_NAME,
    GUEST_ROOT,
    INSTALLED,
    SAME_LENGTH,
    SAME_LENGTH_WORD,
    WIDE_ROOT,
)
from hpcc.core import CallerError, Digest, InputFile

_CHUNK: Final = 1 << 20


class SourceState(StrEnum):
    """What a checkout or a commit has at the place of a source."""

    SAME = "same"
    DIFFERENT = "different"
    ABSENT = "absent"
    # It cannot be opened, or is not a regular file.
    UNREADABLE = "unreadable"
    # Below a place where the commit has another repository.
    SUBMODULE = "submodule"
    # Not of the project: a file that is installed on the machine that compiled.
    INSTALLED = "installed"


class ComparedSource(NamedTuple):
    """A source, its path in a checkout, and what is there."""

    file: InputFile
    path: str
    state: SourceState


def compare_checkout(files: Iterable[InputFile], checkout: Path) -> list[ComparedSource]:
    """Compare the files of an input tree with those of a directory, which was the project's root.

    Raises:
        CallerError: there is no such directory.
    """
    if not checkout.is_dir():
        raise CallerError(f"{checkout} is not a directory: give the root of a checkout")
    return _compared(files, lambda file, path: _state(file, checkout / path))


def compare_contents(
    files: Iterable[InputFile], content: Callable[[str], bytes | SourceState], most: int
) -> list[ComparedSource]:
    """Compare the files of an input tree with contents by path: of a commit.

    `content` gives a file's bytes, at most `most`, or why there are none.
    """

    def state(file: InputFile, path: str) -> SourceState:
        if file.digest.size_bytes > most:
            return SourceState.UNREADABLE
        found = content(path)
        if isinstance(found, SourceState):
            return found
        return SourceState.SAME if Digest.of(found) == file.digest else SourceState.DIFFERENT

    return _compared(files, state)


def _compared(
    files: Iterable[InputFile], state: Callable[[InputFile, str], SourceState]
) -> list[ComparedSource]:
    found = []
    for file in files:
        path = project_path_or_none(file.path)
        if path is None:
            found.append(ComparedSource(file, file.path, SourceState.INSTALLED))
        else:
            found.append(ComparedSource(file, path, state(file, path)))
    return found


def project_path_or_none(path: str) -> str | None:
    """Return the path below the project's root of a file of an input tree; None if it is not there.

    A guest has the project at the root of the tree, or in a directory that hpcc named.
    """
    first, _, rest = path.partition("/")
    if not rest:
        return path
    if first == _name(INSTALLED):
        return None
    is_long = first.startswith(SAME_LENGTH_WORD.decode()) and _name(SAME_LENGTH).startswith(first)
    return rest if first == _name(WIDE_ROOT) or is_long else path


def is_in_build(path: str) -> bool:
    """Return whether a path is in a build directory that the guest called by another name."""
    return BUILD_NAME.decode() in path.split("/")


def _name(path: bytes) -> str:
    return posixpath.relpath(path, GUEST_ROOT).decode()


def _state(file: InputFile, path: Path) -> SourceState:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return SourceState.ABSENT
    except (OSError, ValueError):
        return SourceState.UNREADABLE
    with os.fdopen(descriptor, "rb") as source:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return SourceState.UNREADABLE
        if status.st_size != file.digest.size_bytes:
            return SourceState.DIFFERENT
        hasher, left = hashlib.sha256(), file.digest.size_bytes
        try:
            while left and (data := source.read(min(left, _CHUNK))):
                hasher.update(data)
                left -= len(data)
        except OSError:
            return SourceState.UNREADABLE
    return SourceState.SAME if hasher.hexdigest() == file.digest.hash else SourceState.DIFFERENT
