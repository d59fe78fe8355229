"""Reads the input trees of actions, and remembers what many actions of one project share.

The problem: an action names its inputs by one digest, and the next action of the same project has
the same hundreds of headers. Parsing their directories and asking the disk for each of them costs
more than the rest of the worker's part in a compile.

The rule: what a digest stands for never changes, so a directory is parsed once. Whether the store
still has a blob can change, so it is asked again after `PRESENT_SECONDS`. Both are remembered for
each tenant apart: a tenant that only knows a digest gets nothing by it.

Example: a header is evicted ten seconds after a compile that read it, and another action names it.
If its guest has the header, the action runs. Otherwise the guest asks for it, the store does not
find it, and the client learns which blob to send again, as if it had been asked at first.

What must never happen: an action runs with a directory that its tenant never stored; the memory
grows with what clients send.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from hpcc.core import Digest, InputFile, NotFoundError, TenantId
from hpcc.core.memo import LruMemo, SizedMemo
from hpcc.ports import BlobStore, Clock
from hpcc.reapi.tree import DirectoryListing, TreeWalk, parse_directory
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


@dataclass(frozen=True)
class ActionInputs:
    """The files of an input tree with their paths, and the digests of its directories."""

    files: tuple[InputFile, ...]
    directories: frozenset[Digest]

    @cached_property
    def digests(self) -> frozenset[Digest]:
        """All blobs of the tree, each once."""
        return self.directories.union(f.digest for f in self.files)


@dataclass(frozen=True, slots=True)
class _Parsed:
    listing: DirectoryListing
    size_bytes: int


class InputTrees:
    """The input trees of one worker's actions. Used by one event loop."""

    def __init__(self, clock: Clock, *, max_bytes: int = _MAX_LISTING_BYTES) -> None:
        self._clock = clock
        self._stores: LruMemo[TenantId, KnownBlobStore] = LruMemo(_MAX_TENANTS)
        self._parsed: SizedMemo[tuple[TenantId, Digest], _Parsed] = SizedMemo(
            lambda parsed: parsed.size_bytes, max_bytes=max_bytes
        )

    def store(self, tenant: TenantId, blobs: BlobStore) -> BlobStore:
        """Return the tenant's store with a memory of which blobs it had a moment ago."""
        known = self._stores.use(tenant)
        if known is None or known.inner is not blobs:
            known = self._stores[tenant] = KnownBlobStore(
                blobs, self._clock, seconds=PRESENT_SECONDS, max_entries=_MAX_PRESENT
            )
        return known

    async def read(self, tenant: TenantId, store: BlobStore, root: Digest) -> ActionInputs:
        """Read a tree and check that the store has all of it.

        Raises:
            MissingBlobsError: directories or files are absent.
            ReapiError: the tree breaks a rule.
        """
        walk = TreeWalk(root)
        while wanted := walk.wanted:
            missing: list[Digest] = []
            for digest in wanted:
                try:
                    walk.add(digest, await self._listing(tenant, store, digest))
                except NotFoundError:
                    missing.append(digest)
            if missing:
                raise MissingBlobsError(tuple(missing))
        tree = ActionInputs(walk.files, walk.directories)
        absent = await store.find_missing(tree.digests)
        if absent:
            raise MissingBlobsError(tuple(sorted(absent)))
        return tree

    async def _listing(
        self, tenant: TenantId, store: BlobStore, digest: Digest
    ) -> DirectoryListing:
        parsed = self._parsed.use((tenant, digest))
        if parsed is None:
            listing = parse_directory((await store.get(digest)).data)
            size_bytes = _LISTING_BYTES + _BY_MESSAGE * digest.size_bytes
            self._parsed.put((tenant, digest), parsed := _Parsed(listing, size_bytes))
        return parsed.listing
