"""Reads the input trees of actions, and remembers what many actions of one project share.

The problem: an action names its inputs by one digest, and the next action of the same project has
the same hundreds of headers. Parsing their directories and asking the disk for each of them costs
more than the rest of the worker's part in a compile.

The rule: what a digest stands for never changes, so a directory is parsed once. Its files at one
place are one part, which all actions with it share. Whether the store still has a blob can change,
so it is asked again after `PRESENT_SECONDS`. All of it is remembered for each tenant apart: a
tenant that only knows a digest gets nothing by it.

Example: a header is evicted ten seconds after a compile that read it, and another action names it.
If its guest has the header, the action runs. Otherwise the guest asks for it, the store does not
find it, and the client learns which blob to send again, as if it had been asked at first.

What must never happen: an action runs with a directory that its tenant never stored; the memory
grows with what clients send.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from hpcc.core import Digest, InputFile, InputPart, NotFoundError, TenantId
from hpcc.core.memo import LruMemo, SizedMemo
from hpcc.ports import BlobStore, Clock
from hpcc.reapi.tree import DirectoryListing, TreeWalk, parse_directory, place_directory
from hpcc.rpc.base.errors import MissingBlobsError
from hpcc.store.known import KnownBlobStore

PRESENT_SECONDS: Final = 30.0
# For each tenant. A tree with more files is asked about each time.
_MAX_PRESENT: Final = 50_000
_MAX_TENANTS: Final = 16
_MAX_LISTING_BYTES: Final = 64 << 20
# A parsed entry takes up to six times the bytes of its message: a name can need four bytes for each
# character. A short directory costs its objects.
_BY_MESSAGE: Final = 6
_LISTING_BYTES: Final = 500
# A placed file is an object, its path, its place in a table, and its encoded form.
_PLACED_BYTES: Final = 500
_BY_PREFIX: Final = 8


@dataclass(frozen=True)
class ActionInputs:
    """The files of an input tree by directory and place, and the digests of its directories.

    `empty_directories` are the paths of those that hold nothing.
    """

    parts: tuple[InputPart, ...]
    directories: frozenset[Digest]
    empty_directories: tuple[str, ...] = ()

    @cached_property
    def files(self) -> tuple[InputFile, ...]:
        """All files with their paths."""
        return tuple(itertools.chain.from_iterable(part.files for part in self.parts))

    @cached_property
    def digests(self) -> frozenset[Digest]:
        """All blobs of the tree, each once."""
        return self.directories.union(*(part.by_hash.values() for part in self.parts))


@dataclass(frozen=True, slots=True)
class _Parsed:
    listing: DirectoryListing
    size_bytes: int


@dataclass(slots=True)
class _Placed:
    part: InputPart
    size_bytes: int
    # When the store had all blobs of the part, and how many it had lost by then.
    present_at: float = float("-inf")
    losses: int = 0


class InputTrees:
    """The input trees of one worker's actions. Used by one event loop."""

    def __init__(self, clock: Clock, *, max_bytes: int = _MAX_LISTING_BYTES) -> None:
        self._clock = clock
        self._stores: LruMemo[TenantId, KnownBlobStore] = LruMemo(_MAX_TENANTS)
        self._parsed: SizedMemo[tuple[TenantId, Digest], _Parsed] = SizedMemo(
            lambda parsed: parsed.size_bytes, max_bytes=max_bytes
        )
        self._placed: SizedMemo[tuple[TenantId, Digest, str], _Placed] = SizedMemo(
            lambda placed: placed.size_bytes, max_bytes=max_bytes
        )

    def store(self, tenant: TenantId, blobs: BlobStore) -> KnownBlobStore:
        """Return the tenant's store with a memory of which blobs it had a moment ago."""
        known = self._stores.use(tenant)
        if known is None or known.inner is not blobs:
            known = self._stores[tenant] = KnownBlobStore(
                blobs, self._clock, seconds=PRESENT_SECONDS, max_entries=_MAX_PRESENT
            )
        return known

    async def read(self, tenant: TenantId, store: KnownBlobStore, root: Digest) -> ActionInputs:
        """Read a tree and check that the store has all of it.

        Raises:
            MissingBlobsError: directories or files are absent.
            ReapiError: the tree breaks a rule.
        """
        found: list[_Placed] = []

        def place(digest: Digest, listing: DirectoryListing, prefix: str) -> InputPart:
            found.append(placed := self._place(tenant, digest, listing, prefix))
            return placed.part

        walk = TreeWalk(root, place)
        while wanted := walk.wanted:
            missing: list[Digest] = []
            for digest in wanted:
                try:
                    walk.add(digest, await self._listing(tenant, store, digest))
                except NotFoundError:
                    missing.append(digest)
            if missing:
                raise MissingBlobsError(tuple(missing))
        await self._check_present(store, found)
        return ActionInputs(walk.parts, walk.directories, walk.empty_directories)

    async def _check_present(self, store: KnownBlobStore, found: list[_Placed]) -> None:
        oldest = self._clock.monotonic() - PRESENT_SECONDS
        stale = [p for p in found if p.present_at < oldest or p.losses != store.losses]
        if not stale:
            return
        losses = store.losses
        absent = await store.find_missing(frozenset().union(*(p.part.digests for p in stale)))
        if absent:
            raise MissingBlobsError(tuple(sorted(absent)))
        for placed in stale:
            placed.present_at, placed.losses = store.since(placed.part.digests), losses

    def _place(
        self, tenant: TenantId, digest: Digest, listing: DirectoryListing, prefix: str
    ) -> _Placed:
        placed = self._placed.use((tenant, digest, prefix))
        if placed is None:
            by_file = _PLACED_BYTES + _BY_PREFIX * len(prefix)
            size_bytes = _BY_MESSAGE * digest.size_bytes + by_file * (1 + len(listing.files))
            placed = _Placed(place_directory(digest, listing, prefix), size_bytes)
            self._placed.put((tenant, digest, prefix), placed)
        return placed

    async def _listing(
        self, tenant: TenantId, store: KnownBlobStore, digest: Digest
    ) -> DirectoryListing:
        parsed = self._parsed.use((tenant, digest))
        if parsed is None:
            listing = parse_directory((await store.get(digest)).data)
            size_bytes = _LISTING_BYTES + _BY_MESSAGE * digest.size_bytes
            self._parsed.put((tenant, digest), parsed := _Parsed(listing, size_bytes))
        return parsed.listing
