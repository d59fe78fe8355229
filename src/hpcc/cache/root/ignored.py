"""Which files of a root that no marker names may be sent to a farm.

Problem: such a root was not chosen by the user, and it may hold secrets beside the sources.

Rule: only files that the closure of a compile names are sent. Of these a compile may not need

- a hidden file, or one in a hidden directory such as `.git`;
- a file that git ignores, unless it is in the build directory, where generated headers are.

If it needs one, it stays on this machine with the file's name as the reason. The file is not left
out of the tree: a compile without it might find another header and give another object.

Pattern files come with a clone. They are bounded and never followed as links. One that cannot be
read or is too large ignores everything below it.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hpcc.cache.key.marker import READ_FLAGS
from hpcc.cache.root.git_patterns import Pattern, is_ignored, parse_patterns
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.fallback import FallbackReason

IGNORE_FILE: Final = b".gitignore"
MAX_BYTES: Final = 256 << 10
_EVERYTHING: Final = parse_patterns(b"*\n")
_MAX_REMEMBERED: Final = 65_536
# Files that a build system leaves at the top of a build directory.
BUILD_FILES: Final = (b"CMakeCache.txt", b"build.ninja", b"config.status")

_State = tuple[object, ...]
_Rules = tuple[tuple[int, tuple[Pattern, ...]], ...]


@dataclass(frozen=True, slots=True)
class Withheld:
    """A file that must not be sent, and why; `reason` is counted."""

    path: bytes
    reason: FallbackReason


def build_directory(cwd: bytes, root: bytes) -> bytes:
    """Return the nearest directory above `cwd` with a build system's files, else `cwd`."""
    directory = cwd
    while True:
        if any(os.path.lexists(posixpath.join(directory, name)) for name in BUILD_FILES):
            return directory
        if directory == root or not directory.startswith(root + b"/"):
            return cwd
        directory = directory.rpartition(b"/")[0]


class Outgoing:
    """Decides which files of an unmarked root may be sent; `home` is the user's home directory.

    Thread-safe: a race only does the work twice.
    """

    def __init__(self, home: bytes) -> None:
        self.home = home
        self._shared = posixpath.join(home, b".config/git/ignore")
        self._parsed: BoundedMemo[_State, tuple[Pattern, ...]] = BoundedMemo(_MAX_REMEMBERED)
        self._verdicts: BoundedMemo[tuple[_State, bytes], bool] = BoundedMemo(_MAX_REMEMBERED)

    def first_withheld(self, files: Iterable[bytes], cwd: bytes, root: bytes) -> Withheld | None:
        """Return the first of these files that must not be sent; None if all may be sent.

        The files are below the root, absolute and normal.
        """
        prefix = root.rstrip(b"/") + b"/"
        build = build_directory(cwd, root)
        chains: dict[bytes, tuple[_State, _Rules]] = {}
        for path in files:
            inside = path[len(prefix) :]
            if b"/." in b"/" + inside:
                return Withheld(path, FallbackReason.HIDDEN_INPUT)
            if path.startswith(build.rstrip(b"/") + b"/"):
                continue
            home = inside.rpartition(b"/")[0]
            if home not in chains:
                chains[home] = self._chain(root, home)
            state, rules = chains[home]
            key = (state, inside)
            verdict = self._verdicts.get(key)
            if verdict is None:
                verdict = self._verdicts[key] = _is_left_out(rules, tuple(inside.split(b"/")))
            if verdict:
                return Withheld(path, FallbackReason.IGNORED_INPUT)
        return None

    def _chain(self, root: bytes, home: bytes) -> tuple[_State, _Rules]:
        """Return the rules for files in `home` (relative to the root), and their files' state."""
        names = [(0, self._shared), (0, posixpath.join(root, b".git/info/exclude"))]
        directory = root
        names.append((0, posixpath.join(directory, IGNORE_FILE)))
        for depth, part in enumerate(home.split(b"/") if home else (), 1):
            directory = posixpath.join(directory, part)
            names.append((depth, posixpath.join(directory, IGNORE_FILE)))
        state: list[object] = []
        rules = []
        for depth, path in names:
            seen = _stat_of(path)
            if seen is not None:
                state.append(seen)
                rules.append((depth, self._patterns(seen, path)))
        return tuple(state), tuple(rules)

    def _patterns(self, state: _State, path: bytes) -> tuple[Pattern, ...]:
        known = self._parsed.get(state)
        if known is None:
            known = self._parsed[state] = _read(path)
        return known


def _is_left_out(rules: _Rules, path: tuple[bytes, ...]) -> bool:
    """Tell whether git ignores a file. Nothing below an ignored directory is included again."""
    for length in range(1, len(path) + 1):
        applying = tuple((depth, patterns) for depth, patterns in rules if depth < length)
        if is_ignored(applying, path[:length], is_directory=length < len(path)):
            return True
    return False


def _stat_of(path: bytes) -> _State | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return (path,)
    return (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(path: bytes) -> tuple[Pattern, ...]:
    try:
        fd = os.open(path, READ_FLAGS)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return _EVERYTHING
            with open(fd, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES + 1)
        finally:
            os.close(fd)
    except OSError:
        return _EVERYTHING
    return _EVERYTHING if len(data) > MAX_BYTES else parse_patterns(data)
