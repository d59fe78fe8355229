"""What Clang looks at to find a GCC installation and the headers of a C++ library.

Clang names only the directories that exist in its search path, so a directory that appears changes
the path and was in no list. It looks below the sysroot, `--gcc-toolchain`, the root and its own
installation (ToolChains/Gnu.cpp, Linux.cpp): for versions of GCC, their variants such as `32`, and
directories of headers by version and target.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Final, NamedTuple

from hpcc.cache.base.fields import encode_fields

_BASES: Final = (b"", b"/usr", b"/usr/local")
_LIBRARIES: Final = (b"/lib", b"/lib64", b"/lib32", b"/libx32")
_INSTALLATIONS: Final = (b"/gcc", b"/gcc-cross")
_OF_GCC: Final = 3  # target, version, variant
_OF_HEADERS: Final = 2  # version, target
_SIGNS: Final = frozenset({b"crtbegin.o", b"libgcc.a"})
_DULL: Final = frozenset({b"include", b"include-fixed", b"plugin", b"install-tools", b"finclude"})
_TARGET: Final = re.compile(rb"[a-z0-9_]+(?:-[a-z0-9_.]+){1,4}")
_MAX_DIRECTORIES: Final = 5_000


class InstallationTree(NamedTuple):
    """A digest of the names that count below a root, and the directories that were looked at."""

    digest: bytes
    existing: tuple[bytes, ...]
    missing: tuple[bytes, ...]


def look_at_tree(root: bytes) -> InstallationTree:
    """Return what Clang may find below this absolute directory."""
    walk = _Walk()
    root = root.rstrip(b"/")
    for base in (root + below for below in _BASES):
        if not walk.is_there(base):
            continue
        for library in filter(walk.is_there, (base + name for name in _LIBRARIES)):
            for installation in _INSTALLATIONS:
                walk.installations(library + installation, _OF_GCC)
        walk.headers(base)
    text = encode_fields(part for path, names in walk.found for part in (path, *names, b""))
    return InstallationTree(
        hashlib.sha256(text).digest(), tuple(walk.existing), tuple(walk.missing)
    )


class _Walk:
    def __init__(self) -> None:
        self.found: list[tuple[bytes, list[bytes]]] = []
        self.targets: list[bytes] = []
        self.existing: dict[bytes, None] = {}
        self.missing: dict[bytes, None] = {}

    def is_there(self, path: bytes) -> bool:
        """Tell whether this is a directory; note it if it is not."""
        if os.path.isdir(path or b"/"):
            return True
        self.missing[path] = None
        return False

    def installations(self, path: bytes, depth: int) -> None:
        """Look at versions of GCC."""
        directories, files = self._list(path)
        self.found.append((path, [*directories, b"", *files]))
        if depth == _OF_GCC:
            self.targets += directories
        for name in directories if depth else ():
            self.installations(path + b"/" + name, depth - 1)

    def headers(self, base: bytes) -> None:
        """Look at headers of C++ libraries, also those below a target's name.

        The base itself is not listed: it may be a project's directory, which changes all the time.
        """
        below = (base + b"/" + target + b"/include" for target in dict.fromkeys(self.targets))
        for include in filter(self.is_there, (base + b"/include", *below)):
            directories, _ = self._list(include)
            targets = [name for name in directories if _TARGET.fullmatch(name)]
            self.found.append((include, targets))
            for path in (include, *(include + b"/" + target for target in targets)):
                self._versions(path + b"/c++", _OF_HEADERS)

    def _versions(self, path: bytes, depth: int) -> None:
        directories, _ = self._list(path)
        self.found.append((path, directories))
        for name in directories if depth > 1 else ():
            self._versions(path + b"/" + name, depth - 1)

    def _list(self, path: bytes) -> tuple[list[bytes], list[bytes]]:
        """Return the directories and the telling files in a directory, sorted."""
        path = path or b"/"
        if len(self.existing) >= _MAX_DIRECTORIES:
            return [], []
        try:
            with os.scandir(path) as entries:
                seen = [(e.name, e.is_dir()) for e in entries]
        except OSError:
            self.missing[path] = None
            return [], []
        self.existing[path] = None
        directories = sorted(name for name, is_dir in seen if is_dir and name not in _DULL)
        return directories, sorted(name for name, is_dir in seen if not is_dir and name in _SIGNS)
