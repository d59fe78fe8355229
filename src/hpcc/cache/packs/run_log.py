"""What this daemon compiled or took from packs, by checkout: what `hpcc pack push` may send.

A result that an earlier daemon made is not in it. Only names and digests are kept; the bytes are
read from the store at the push and must have the same digest then.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Final, NamedTuple

from hpcc.cache.packs.index import MAX_ROWS
from hpcc.cache.signed.entry import Content, EntryName

_MAX_ROOTS: Final = 64


class Compiled(NamedTuple):
    """A result that this daemon compiled. `digest` is of its encoded content."""

    name: EntryName
    result_key: bytes
    digest: bytes


class Taken(NamedTuple):
    """A record of a pack that a compile of this run used; `digest` is of its bytes."""

    name: EntryName
    digest: bytes


class OfFarm(NamedTuple):
    """A result of a farm, as a worker signed it. `digest` is of the entry's bytes.

    `store_key` is where the private store has them; b"" if they are in a pack that was pulled.
    """

    row: bytes
    store_key: bytes
    digest: bytes


Note = Compiled | Taken | OfFarm


class RunLog:
    """Bounded. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._roots: dict[bytes, dict[EntryName | bytes, Note]] = {}

    def compiled(self, root: bytes, name: EntryName, content: Content) -> None:
        """Note a result that was compiled just now, as it is stored."""
        digest = hashlib.sha256(content.encode()).digest()
        self._note(root, name, Compiled(name, content.inputs.result_key, digest))

    def taken(self, root: bytes, name: EntryName, data: bytes) -> None:
        """Note a record that was checked and used."""
        self._note(root, name, Taken(name, hashlib.sha256(data).digest()))

    def of_farm(self, root: bytes, row: bytes, data: bytes, store_key: bytes) -> None:
        """Note an entry that a worker of a farm signed; see `OfFarm`."""
        self._note(root, row, OfFarm(row, store_key, hashlib.sha256(data).digest()))

    def _note(self, root: bytes, name: EntryName | bytes, what: Note) -> None:
        with self._lock:
            its = self._roots.get(root)
            if its is None:
                if len(self._roots) >= _MAX_ROOTS:
                    return
                its = self._roots[root] = {}
            # The latest: a source that was compiled with two states of a header has one row.
            if name in its or len(its) < MAX_ROWS:
                its[name] = what

    def of(self, root: bytes) -> tuple[Note, ...]:
        """Return what was noted for a checkout."""
        with self._lock:
            return tuple(self._roots.get(root, {}).values())
