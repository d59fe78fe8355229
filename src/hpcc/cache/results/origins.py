"""Remembers what made the binary inputs of compiles, so that their users hit in other checkouts.

Problem: a precompiled header holds paths of its checkout, and GCC's never has the same bytes twice.
So each checkout makes its own. The objects of its users are equal, but not their inputs by content.

Rule: the *origin* of a file that a compile wrote is the result key of that compile, as other
checkouts would compute it: compiler, command and inputs with a mark in place of the root. In a
shared set of inputs it stands in place of the file's SHA-256 (`results.share_results`). It belongs
to a name, a content and the checkout of that compile. A file that no compile with prefix maps wrote
has no origin, and neither has one whose inputs name the checkout, a copy from another place, nor
one of another checkout.

Guard: two contents of one origin count as equal for users once a compile with the one gave, byte
for byte, what is stored of a compile with the other. So the first user in a further checkout is
compiled. If its result differs, the origin counts no more, and each checkout keeps its own results.

Example: two clones make all.h.gch from the same headers. The second clone compiles a.cpp with its
own, and gets the stored object. From then on b.cpp is a hit.

What must never happen: a result counts for a content with which its origin was never compared. So a
result names the contents that it was made with, and without the record of a comparison it is a
miss.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Final

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.core import IntegrityError
from hpcc.core.memo import BoundedMemo
from hpcc.store.private import PrivateStore

_FORMAT: Final = b"origin-1"
_DIGEST_BYTES: Final = 32
_MAX_REMEMBERED: Final = 10_000
# Clang writes the same interface for several texts of one length.
_MAX_ORIGINS: Final = 8
# Checkouts on one machine, and contents after evictions. A further one is compared again.
_MAX_EQUAL: Final = 256
# In place of the contents of an origin that does not count: no digest is so short.
_DIFFERS: Final = (b"differs",)

_Digests = tuple[bytes, ...]


class Origins:
    """The origins of files. Thread-safe; a fault of the disk is a missing record."""

    def __init__(self, store: PrivateStore) -> None:
        self._store, self._lock = store, threading.Lock()
        self._known: BoundedMemo[bytes, _Digests] = BoundedMemo(_MAX_REMEMBERED)

    def remember(self, path: bytes, data: bytes, origin: bytes, root: bytes) -> None:
        """Record that a compile with this origin wrote these bytes under this name.

        `root` is that of its checkout.
        """
        key = _content_key(path, hashlib.sha256(data).digest(), root)
        with self._lock:
            found = dict.fromkeys((origin, *self._read(key)))
            self._write(key, tuple(found)[:_MAX_ORIGINS])

    def of(self, path: bytes, digest: bytes, root: bytes) -> _Digests:
        """Return the origins of a file with this SHA-256, the newest first.

        () for a compile in another checkout than the one at `root`.
        """
        return self._read(_content_key(path, digest, root))

    def are_equal(self, origin: bytes, one: bytes, other: bytes) -> bool:
        """Tell whether users of these two contents of an origin are known to be equal."""
        if one == other:
            return True
        equal = self._read(_key(b"equal", origin))
        return one in equal and other in equal

    def note_equal(self, origin: bytes, one: bytes, other: bytes) -> None:
        """Record that one user of these two contents was compared, and was equal."""
        key = _key(b"equal", origin)
        with self._lock:
            equal = self._read(key)
            if equal != _DIFFERS:
                # Nothing is known of contents that were compared with neither of the two.
                others = equal if one in equal or other in equal else ()
                self._write(key, tuple(dict.fromkeys((one, other, *others)))[:_MAX_EQUAL])

    def note_different(self, origin: bytes) -> None:
        """Record that users of two contents differ: each content counts only for itself."""
        with self._lock:
            self._write(_key(b"equal", origin), _DIFFERS)

    def _read(self, key: bytes) -> _Digests:
        known = self._known.get(key)
        if known is not None:
            return known
        data = self._store.get(key)
        if data is None:
            return ()
        try:
            found = _decode(data)
        except IntegrityError:
            self._store.remove(key)
            return ()
        self._known[key] = found
        return found

    def _write(self, key: bytes, digests: _Digests) -> None:
        self._store.put(key, encode_fields([_FORMAT, *digests]))
        self._known[key] = digests


def contents_of(data: bytes) -> _Digests:
    """Split joined SHA-256 digests; () for other bytes."""
    if len(data) % _DIGEST_BYTES:
        return ()
    return tuple(data[at : at + _DIGEST_BYTES] for at in range(0, len(data), _DIGEST_BYTES))


def _content_key(path: bytes, digest: bytes, root: bytes) -> bytes:
    # By name and root: one that was copied from another checkout, or is read in its place there,
    # holds the paths of that one, which the maps of a compile in this checkout do not replace.
    return _key(b"content", os.path.realpath(path), digest, root)


def _key(kind: bytes, *names: bytes) -> bytes:
    return hashlib.sha256(encode_fields([_FORMAT, kind, *names])).digest()


def _decode(data: bytes) -> _Digests:
    """Decode what `Origins` stored.

    Raises:
        IntegrityError: the bytes are not a record of this version.
    """
    kind, *digests = decode_fields(data) or [b""]
    is_plain = tuple(digests) == _DIFFERS or all(len(d) == _DIGEST_BYTES for d in digests)
    if kind != _FORMAT or not is_plain or len(digests) > _MAX_EQUAL:
        raise IntegrityError("not a record of this version", reason="bad-record")
    return tuple(digests)
