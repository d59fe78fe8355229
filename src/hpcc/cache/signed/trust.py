"""Whose signatures count for a checkout: keys of hpcc.toml, and keys that were confirmed for it.

A key in hpcc.toml counts for every checkout of this user. A key that `hpcc cache trust` confirmed
counts for one absolute root and one place. Both must name the same line, so a key with another
expiry is another key. Revoked ids win, wherever they are written: hpcc.toml, the file of this
module, or the checkout's `.hpcc`, which can only take trust away.

The file is read again when its stat changes. If it is damaged, no key counts: it could have held
a revocation.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from hpcc.cache.base.files import Signature, signature_of
from hpcc.config.private_file import make_private_directory, write_private_file
from hpcc.config.remote_cache import RemoteCacheSettings
from hpcc.core import CallerError
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import CacheKey, parse_cache_key, revoked_id

_VERSION: Final = 1
_MAX_FILE_BYTES: Final = 1 << 20
_MAX_ENTRIES: Final = 4096


class Confirmed(NamedTuple):
    """A key that the user confirmed for one root (absolute path) at one place."""

    root: str
    place: str
    line: str


@dataclass(frozen=True, slots=True)
class TrustFile:
    """What `hpcc cache trust` and `hpcc cache revoke` wrote."""

    confirmed: tuple[Confirmed, ...] = ()
    revoked: frozenset[str] = frozenset()

    def lines(self, root: str, place: str) -> tuple[str, ...]:
        """Return the lines that were confirmed for one root at one place."""
        return tuple(row.line for row in self.confirmed if row[:2] == (root, place))

    def including(self, row: Confirmed) -> TrustFile:
        """Return the same with one more confirmation."""
        return TrustFile(tuple(dict.fromkeys((*self.confirmed, row))), self.revoked)

    def without(self, root: str, place: str) -> TrustFile:
        """Return the same without what was confirmed for a root at a place."""
        rows = tuple(row for row in self.confirmed if row[:2] != (root, place))
        return TrustFile(rows, self.revoked)

    def revoking(self, kid: str) -> TrustFile:
        """Return the same with one more revoked key."""
        return TrustFile(self.confirmed, self.revoked | {kid})


def place_name(settings: RemoteCacheSettings) -> str:
    """Return what a confirmation is bound to besides root and key."""
    return "\n".join((settings.url, settings.endpoint, settings.namespace))


def load_trust(path: Path) -> TrustFile:
    """Return the content of the file; empty if it does not exist.

    Raises:
        CallerError: it is damaged or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return TrustFile()
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}", reason="cache-trust") from error
    try:
        return _parse(data)
    except (ValueError, TypeError, KeyError, RecursionError, CallerError) as error:
        raise CallerError(
            f"{path} is damaged, so no key of a remote cache counts: remove it and confirm again",
            reason="cache-trust",
        ) from error


def _parse(data: bytes) -> TrustFile:
    table = json.loads(data) if len(data) <= _MAX_FILE_BYTES else {}
    rows, revoked = table["confirmed"], table["revoked"]
    if table["version"] != _VERSION or max(len(rows), len(revoked)) > _MAX_ENTRIES:
        raise ValueError
    confirmed = tuple(Confirmed(row["root"], row["place"], row["line"]) for row in rows)
    if not all(isinstance(part, str) for row in confirmed for part in row):
        raise TypeError
    for row in confirmed:
        parse_cache_key(row.line)
    return TrustFile(confirmed, frozenset(map(revoked_id, revoked)))


def change_trust(path: Path, change: Callable[[TrustFile], TrustFile]) -> None:
    """Replace the file's content; two commands at once change it one after the other.

    Raises:
        CallerError: the file is damaged, or would have too many entries.
        InfrastructureError: it cannot be written; the old one is unchanged.
    """
    make_private_directory(path.parent)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Without it one of two writers could lose the other's revocation.
        fcntl.flock(lock, fcntl.LOCK_EX)
        trust = change(load_trust(path))
        if max(len(trust.confirmed), len(trust.revoked)) > _MAX_ENTRIES:
            raise CallerError(f"more than {_MAX_ENTRIES} keys: remove {path}", reason="cache-trust")
        table = {
            "version": _VERSION,
            "confirmed": [row._asdict() for row in trust.confirmed],
            "revoked": sorted(trust.revoked),
        }
        write_private_file(path, json.dumps(table, indent=1).encode())
    finally:
        os.close(lock)


class TrustBook:
    """The keys that count for each checkout now. Thread-safe.

    Raises:
        CallerError: from the constructor: a key in the settings is malformed.
    """

    def __init__(self, path: Path, settings: RemoteCacheSettings, now: Callable[[], float]) -> None:
        self.path: Final = path
        self.now, self._place = now, place_name(settings)
        self._own = tuple(map(parse_cache_key, settings.trusted_keys))
        self._revoked = frozenset(map(revoked_id, settings.revoked_keys))
        self._lock = threading.Lock()
        self._known: tuple[Signature | None, TrustFile | None] = None, TrustFile()

    def keys(self, root: bytes, revoked: frozenset[str]) -> tuple[CacheKey, ...]:
        """Return the keys that count for a root; `revoked` are the ids that its marker revokes."""
        keys, bad = self._all(root)
        now = self.now()
        return tuple(
            key for key in keys if not key.is_expired(now) and key.kid not in bad | revoked
        )

    def is_expired(self, key: CacheKey) -> bool:
        """Tell whether a key's last day is over now."""
        return key.is_expired(self.now())

    def judge(self, root: bytes, revoked: frozenset[str], kid: str) -> CacheKey | RefusedEntry:
        """Return the key of an id if it counts for a root, else why not."""
        keys, bad = self._all(root)
        if kid in bad | revoked:
            return RefusedEntry.REVOKED_KEY
        found = [key for key in keys if key.kid == kid]
        if not found:
            return RefusedEntry.UNKNOWN_KEY
        # The same key may be confirmed with several last days.
        now = self.now()
        valid = [key for key in found if not key.is_expired(now)]
        return valid[0] if valid else RefusedEntry.EXPIRED_KEY

    def _all(self, root: bytes) -> tuple[tuple[CacheKey, ...], frozenset[str]]:
        trust = self._read()
        if trust is None:
            return (), frozenset()
        lines = trust.lines(os.fsdecode(root), self._place)
        keys = dict.fromkeys((*self._own, *map(parse_cache_key, lines)))
        return tuple(keys), self._revoked | trust.revoked

    def _read(self) -> TrustFile | None:
        """Return the file's content, from memory while its stat is the same; None if damaged."""
        try:
            signature: Signature | None = signature_of(self.path.stat())
        except OSError:
            signature = None
        with self._lock:
            known = self._known
            # The file is replaced by a rename, so that new content is a new inode.
            if known[0] == signature and (signature is not None or known[1] == TrustFile()):
                return known[1]
            try:
                found: TrustFile | None = load_trust(self.path)
            except CallerError:
                found = None
            self._known = signature, found
            return found
