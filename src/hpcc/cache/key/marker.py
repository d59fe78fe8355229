"""Finds the project root: the nearest directory upward with a trustworthy `.hpcc` marker.

The marker arrives with a clone and is hostile input. It may hold a name, directories to leave out,
a format version, and keys of a remote cache: revoked ones, which then sign nothing for this clone,
and proposed ones, which count only after `hpcc cache trust`. Another user may own a directory
above, so the search has an end (`cache.base.levels`).
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hpcc.cache.base.levels import levels_above
from hpcc.core.reasons.private import PrivateReason

MARKER: Final = b".hpcc"
MAX_MARKER_BYTES: Final = 16 << 10
VERSION: Final = 1
MAX_EXCLUDED: Final = 256
# A parser's work for a dotted key grows with the square of its parts: 8,000 take it seconds.
MAX_MARKER_DOTS: Final = 4 * MAX_EXCLUDED
MAX_NAME: Final = 200
MAX_KEYS: Final = 64
_MAX_KEY_CHARS: Final = 200
_KEY_ID: Final = re.compile(r"[0-9a-f]{32}")
_KEYS: Final = frozenset({"name", "exclude", "version", "proposed_keys", "revoked_keys"})
# Windows has none of these flags and another search: `hpcc.cache.remote.windows_root`.
_NAMES: Final = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")
READ_FLAGS: Final = os.O_RDONLY | sum(getattr(os, name, 0) for name in _NAMES)


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker that passed all checks.

    `root` is absolute. `excluded` are paths relative to it whose compiles are never shared.
    `revoked_keys` are ids. `proposed_keys` are lines that nothing has checked.
    """

    root: bytes
    name: str = ""
    excluded: tuple[bytes, ...] = ()
    revoked_keys: frozenset[str] = frozenset()
    proposed_keys: tuple[str, ...] = ()

    def excludes(self, inside: bytes) -> bool:
        """Tell whether a path relative to the root is excluded from sharing."""
        return any(inside == e or inside.startswith(e + b"/") for e in self.excluded)


@dataclass(frozen=True, slots=True)
class MarkerSearch:
    """What a search found. `directories` are those looked into, from cwd upward.

    `refusal`: why the search rejected a marker; "" if it met no marker or accepted it.
    """

    marker: Marker | None
    refusal: str
    directories: tuple[bytes, ...]


class MarkerError(Exception):
    """A marker is invalid; `reason` is counted, the text is for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def find_root(cwd: bytes, home: bytes) -> bytes:
    """Return the directory of the nearest accepted marker, else `cwd`."""
    found = search_marker(cwd, home).marker
    return cwd if found is None else found.root


def search_marker(
    cwd: bytes, home: bytes, read: Callable[[bytes, os.stat_result], Marker] | None = None
) -> MarkerSearch:
    """Search upward from `cwd`; the nearest marker decides, an invalid one ends the search.

    `read` replaces `read_marker` and gets the marker's stat as well. Never raises: an unreadable
    directory ends the search.
    """
    read = read or (lambda root, _status: read_marker(root))
    seen: list[bytes] = []
    refusal = ""
    try:
        for directory in levels_above(cwd, home):
            seen.append(directory)
            try:
                here = os.lstat((b"" if directory == b"/" else directory) + b"/" + MARKER)
            except OSError:
                continue
            distrust = _why_distrusted(here)
            if not distrust:
                return MarkerSearch(read(directory, here), "", tuple(seen))
            refusal = refusal or distrust
    except MarkerError as error:
        return MarkerSearch(None, error.reason, tuple(seen))
    except OSError:
        return MarkerSearch(None, refusal, tuple(seen))
    return MarkerSearch(None, refusal, tuple(seen))


def _why_distrusted(status: os.stat_result) -> str:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return PrivateReason.MARKER_KIND
    if status.st_uid not in {0, os.geteuid()}:
        return PrivateReason.MARKER_OWNER
    return PrivateReason.MARKER_WRITABLE if status.st_mode & stat.S_IWOTH else ""


def read_marker(root: bytes) -> Marker:
    """Read the marker in `root`; a directory or an empty file means the defaults.

    Raises:
        MarkerError: it is not a marker of this version.
    """
    path = posixpath.join(root, MARKER)
    try:
        fd = os.open(path, READ_FLAGS)
    except OSError as error:
        raise MarkerError(
            PrivateReason.MARKER_UNREADABLE, f"cannot read it: {error.strerror}"
        ) from error
    try:
        status = os.fstat(fd)
        # Checked again after the open: the file may have been swapped since the search.
        if distrust := _why_distrusted(status):
            raise MarkerError(distrust, "it was replaced meanwhile")
        if stat.S_ISDIR(status.st_mode):
            return Marker(root)
        data = os.read(fd, MAX_MARKER_BYTES + 1)
    except OSError as error:
        raise MarkerError(
            PrivateReason.MARKER_UNREADABLE, f"cannot read it: {error.strerror}"
        ) from error
    finally:
        os.close(fd)
    return parse_marker(root, data)


def parse_marker(root: bytes, data: bytes) -> Marker:
    """Parse a marker's content of at most `MAX_MARKER_BYTES`. Pure.

    Raises:
        MarkerError: it is not a marker of this version.
    """
    if len(data) > MAX_MARKER_BYTES:
        raise MarkerError(PrivateReason.MARKER_SIZE, f"it is larger than {MAX_MARKER_BYTES} bytes")
    if data.count(b".") > MAX_MARKER_DOTS:
        raise MarkerError(PrivateReason.MARKER_SIZE, f"it has more than {MAX_MARKER_DOTS} dots")
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise MarkerError(PrivateReason.MARKER_SYNTAX, "it is not TOML") from error
    if unknown := sorted(table.keys() - _KEYS):
        raise MarkerError(PrivateReason.MARKER_KEY, f"it may not hold the key {unknown[0][:40]!r}")
    name, excluded = table.get("name", ""), table.get("exclude", [])
    if type(table.get("version", VERSION)) is not int or table.get("version", VERSION) != VERSION:
        raise MarkerError(PrivateReason.MARKER_VERSION, f"its version is not {VERSION}")
    if not isinstance(name, str) or len(name) > MAX_NAME or not name.isprintable():
        raise MarkerError(PrivateReason.MARKER_VALUE, "its name is not a short printable text")
    if not isinstance(excluded, list) or len(excluded) > MAX_EXCLUDED:
        raise MarkerError(PrivateReason.MARKER_VALUE, "exclude is not a short list")
    revoked = _texts(table.get("revoked_keys", []), "revoked_keys")
    if not all(map(_KEY_ID.fullmatch, revoked)):
        raise MarkerError(PrivateReason.MARKER_VALUE, "revoked_keys may hold only ids of keys")
    proposed = _texts(table.get("proposed_keys", []), "proposed_keys")
    return Marker(root, name, tuple(map(_excluded, excluded)), frozenset(revoked), proposed)


def _texts(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_KEYS:
        raise MarkerError(PrivateReason.MARKER_VALUE, f"{what} is not a short list")
    if not all(isinstance(v, str) and len(v) <= _MAX_KEY_CHARS and v.isprintable() for v in value):
        raise MarkerError(PrivateReason.MARKER_VALUE, f"{what} holds no short printable texts")
    return tuple(value)


def _excluded(value: object) -> bytes:
    path = value.rstrip("/").encode() if isinstance(value, str) else b""
    is_below = path not in {b"", b".", b".."} and not path.startswith((b"/", b"../"))
    if is_below and b"\0" not in path and posixpath.normpath(path) == path:
        return path
    raise MarkerError(PrivateReason.MARKER_VALUE, "exclude may hold only paths below the root")
