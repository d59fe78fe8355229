"""Moves an action's inputs from an engine's CAS to the tenant's store, and its outputs back.

What the engine sends becomes a blob only if it has the digest that was asked for. Sizes are known
before anything is fetched, because a digest has them, and the whole tree is bounded before its
first file: `TreeWalk` bounds its directories, and this module the bytes of its files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from hpcc.core import (
    EMPTY_DIGEST,
    Blob,
    CallerError,
    Digest,
    InfrastructureError,
    NotFoundError,
    PolicyError,
)
from hpcc.ports import BlobStore
from hpcc.reapi.limits import MAX_TREE_BYTES, ReapiError
from hpcc.reapi.output_tree import output_tree_files
from hpcc.reapi.result import ResultOutput
from hpcc.reapi.tree import TreeWalk
from hpcc.rpc.base.errors import DeadlineError, MissingBlobsError, UnavailableError
from hpcc.rpc.engine.link import EngineLink
from hpcc.rpc.reapi.client import ReapiClient

# What is in memory at a time: so many chunks of all leases, and one file that is larger than one.
_CHUNK_BYTES: Final = 16 << 20
_CHUNK_BLOBS: Final = 2_000
_CHUNKS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    """Of one action: the bytes of all files of its input tree, each once, and of one file."""

    input_bytes: int
    file_bytes: int


class EngineTransfer:
    """Transfers of one bot."""

    def __init__(self, link: EngineLink, store: BlobStore, limits: TransferLimits) -> None:
        self._link, self._store, self._limits = link, store, limits
        self._chunks, self._large = asyncio.Semaphore(_CHUNKS), asyncio.Lock()

    async def message(self, digest: Digest, limit: int) -> Blob:
        """Return the blob of a message of at most `limit` bytes, and keep it in the store.

        Raises:
            ReapiError: it is larger.
            MissingBlobsError: the engine does not have it.
        """
        if digest.size_bytes > limit:  # before reading: a blob may have hundreds of megabytes
            raise ReapiError(f"a message of {digest.size_bytes} bytes, over {limit}")
        await self._fetch([digest])
        return await self._kept(digest)

    async def tree(self, root: Digest) -> None:
        """Bring all directories and files of an input tree into the store.

        Raises:
            MissingBlobsError: the engine lacks some of them.
            ReapiError: the tree breaks a rule or a limit.
            IntegrityError: the engine sent other bytes.
        """
        walk, size = TreeWalk(root), 0
        while wanted := walk.wanted:
            # The walk counts a directory when it gets it, and a level may name gigabytes.
            size += sum(digest.size_bytes for digest in wanted)
            if size > MAX_TREE_BYTES:
                raise ReapiError("input tree is too large", reason="tree-limit")
            await self._fetch(wanted)
            for digest in wanted:
                walk.feed(digest, (await self._kept(digest)).data)
        files: set[Digest] = set().union(*(part.digests for part in walk.parts))
        files -= walk.directories
        for digest in files:
            if digest.size_bytes > self._limits.file_bytes:
                raise ReapiError(
                    f"an input has {digest.size_bytes} bytes, over {self._limits.file_bytes}"
                    " (max_file_bytes of the bot)",
                    reason="tree-limit",
                )
        total = sum(d.size_bytes for d in files)
        if total > self._limits.input_bytes:
            raise ReapiError(
                f"the inputs have {total} bytes, over {self._limits.input_bytes}"
                " (max_input_bytes of the bot)",
                reason="tree-limit",
            )
        await self._fetch(files)

    async def upload(self, outputs: Sequence[ResultOutput], more: Iterable[Blob]) -> None:
        """Upload outputs, the files of output directories, and `more`, if the engine lacks them.

        Raises:
            NotFoundError: the store has lost an output.
        """
        extra = {blob.digest: blob for blob in more}
        wanted = {output.digest for output in outputs} | set(extra)
        for output in outputs:
            if output.is_directory:
                wanted |= output_tree_files((await self._store.get(output.digest)).data)
        with self._calling() as cas:
            missing = await cas.find_missing(wanted - {EMPTY_DIGEST})
        for chunk in _chunks(missing):
            async with self._room(chunk):
                blobs = [extra.get(d) or await self._store.get(d) for d in chunk]
                with self._calling() as cas:
                    await cas.upload(blobs)

    async def _fetch(self, digests: Iterable[Digest]) -> None:
        """Bring blobs into the store that are not there."""
        for chunk in _chunks(await self._store.find_missing(digests)):
            async with self._room(chunk):
                with self._calling() as cas:
                    found = await _download(cas, chunk)
                for blob in found.values():
                    await self._store.put(blob)
                found.clear()

    async def _kept(self, digest: Digest) -> Blob:
        """Return a blob that was fetched.

        Raises:
            InfrastructureError: other leases have displaced it (reason `store-too-small`).
        """
        try:
            return await self._store.get(digest)
        except NotFoundError as error:
            raise store_too_small() from error

    @contextmanager
    def _calling(self) -> Generator[ReapiClient]:
        """Give the client of the CAS for a call, and use the next server after one that is lost.

        What the CAS refuses to the bot, the engine's client has not caused, nor the action.

        Raises:
            InfrastructureError: the CAS refuses the bot's credential (reason `engine-refused`), or
                what it asks.
        """
        cas = self._link.cas
        try:
            yield cas
        except (UnavailableError, DeadlineError):
            self._link.lost(cas)
            raise
        except MissingBlobsError:
            raise
        except PolicyError as error:
            raise InfrastructureError(
                f"the engine's CAS refuses the worker: {error}", reason="engine-refused"
            ) from error
        except (CallerError, NotFoundError) as error:
            raise InfrastructureError(f"it refuses a call: {error}", reason="engine-cas") from error

    def _room(self, chunk: Sequence[Digest]) -> asyncio.Semaphore | asyncio.Lock:
        """Return what bounds the memory of a chunk in transfer."""
        is_large = sum(digest.size_bytes for digest in chunk) > _CHUNK_BYTES
        return self._large if is_large else self._chunks


async def _download(cas: ReapiClient, chunk: Sequence[Digest]) -> dict[Digest, Blob]:
    """Return blobs.

    Raises:
        MissingBlobsError: the engine lacks some of them.
    """
    try:
        return await cas.download(chunk)
    except NotFoundError:
        # Which ones: the client then uploads all of them, and tries once.
        missing = await cas.find_missing(chunk)
        raise MissingBlobsError(tuple(sorted(missing or chunk))) from None


def store_too_small() -> InfrastructureError:
    """Return the error for inputs that were fetched and are not in the store any more."""
    return InfrastructureError(
        "the worker's store is too small for the inputs of its leases: raise max_store_bytes",
        reason="store-too-small",
    )


def _chunks(digests: Iterable[Digest]) -> list[list[Digest]]:
    """Divide blobs by what may be in memory at a time."""
    chunks: list[list[Digest]] = []
    size = _CHUNK_BYTES
    for digest in sorted(digests):
        if size + digest.size_bytes > _CHUNK_BYTES or len(chunks[-1]) >= _CHUNK_BLOBS:
            chunks.append([])
            size = 0
        chunks[-1].append(digest)
        size += digest.size_bytes
    return chunks
