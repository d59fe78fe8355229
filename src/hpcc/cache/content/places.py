"""The two directories that a content key leaves out: the working directory and the project's root.

A path below one of them is stored as a mark and the rest. Another compile spells the mark with its
own directory. Any choice of directories is right, because the spelled paths are checked again
before a hit: a bad choice only costs hits. So the search for the root trusts every directory, keeps
names as they are spelled and accepts a build directory outside the root. `cache.root.project_root`
may do none of this, because its root decides which files are sent.
"""

from __future__ import annotations

import os
import posixpath
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.root.build_data import CMAKE_CACHE, named_home
from hpcc.cache.root.project_root import CONTROLS, RootWay

# No file name holds NUL, so no other path begins like a mark.
CWD_MARK: Final = b"\0c"
ROOT_MARK: Final = b"\0r"
_ROOT_NAMES: Final = tuple(way.value.encode() for way in (RootWay.MARKER, *CONTROLS))
_MAX_LEVELS: Final = 32
_MAX_CACHE_BYTES: Final = 1 << 20
_LEAST_DEPTH: Final = 2


class Places(NamedTuple):
    """Absolute, without a slash at the end; `root` is b"" if only the working directory counts."""

    cwd: bytes
    root: bytes

    def mark(self, path: bytes) -> bytes:
        """Replace the longer of the two directories at the start of an absolute path."""
        pairs = ((self.cwd, CWD_MARK), (self.root, ROOT_MARK))
        # Called for each input of each compile that is stored.
        for directory, mark in pairs if len(self.cwd) >= len(self.root) else pairs[::-1]:
            if directory and path.startswith(directory):
                rest = path[len(directory) :]
                if not rest or rest.startswith(b"/"):
                    return mark + rest
        return path

    def spell(self, path: bytes) -> bytes:
        """Reverse `mark` with these directories."""
        if path.startswith(CWD_MARK):
            return self.cwd + path[len(CWD_MARK) :]
        if path.startswith(ROOT_MARK):
            return self.root + path[len(ROOT_MARK) :]
        return path

    def marked(self, inputs: InputSet) -> InputSet:
        """Return a set of inputs with marks."""
        places = tuple(filter(None, self))
        # Most files are the system's headers.
        files = [
            (self.mark(path), digest) if path.startswith(places) else (path, digest)
            for path, digest in inputs.files
        ]
        rest = inputs._replace(files=()).renamed(self.mark)
        return rest._replace(files=tuple(files))

    def spelled(self, inputs: InputSet) -> InputSet:
        """Return a marked set with the paths of these directories."""
        return inputs.renamed(self.spell)


def find_places(memo: FileMemo, cwd: bytes, source: bytes, marker_root: bytes) -> Places | None:
    """Return the places of a compile; None if the working directory is `/`.

    `marker_root` is the root that a marker names, else b"". Without one it is the nearest directory
    with version control above the source, else the directory that CMake's cache names, else the
    directory above both source and working directory.
    """
    if cwd in {b"", b"/"} or not cwd.startswith(b"/"):
        return None
    home = posixpath.dirname(posixpath.normpath(source))
    root = (
        marker_root or _version_control(home) or _cmake_home(memo, cwd, home) or _above(cwd, home)
    )
    return Places(cwd, b"" if root in {cwd, b"/"} else root)


def _version_control(directory: bytes) -> bytes:
    for _ in range(_MAX_LEVELS):
        if directory in {b"", b"/"}:
            return b""
        if any(os.path.lexists(directory + b"/" + name) for name in _ROOT_NAMES):
            return directory
        directory = posixpath.dirname(directory)
    return b""


def _cmake_home(memo: FileMemo, cwd: bytes, source_directory: bytes) -> bytes:
    directory = cwd
    for _ in range(_MAX_LEVELS):
        path = directory + b"/" + CMAKE_CACHE
        try:
            is_usable = os.stat(path).st_size <= _MAX_CACHE_BYTES
        except OSError:
            is_usable = False
        if is_usable:
            digest = memo.digest(path)
            found = digest and memo.derived(path, digest, "cmake-home", named_home)
            is_above = found and (source_directory + b"/").startswith(found + b"/")
            return found if found and is_above else b""
        directory = posixpath.dirname(directory)
        if directory in {b"", b"/"}:
            break
    return b""


def _above(cwd: bytes, source_directory: bytes) -> bytes:
    common = posixpath.commonpath([cwd, source_directory])
    if common.count(b"/") >= _LEAST_DEPTH:
        return common
    return source_directory if source_directory.count(b"/") >= _LEAST_DEPTH else b""
