"""Moves an action's inputs from an engine's CAS to the tenant's store, and its outputs back.

What the engine sends becomes a blob only if it has the digest that was asked for. Sizes are known
before anything is fetched, because a digest has them, and the whole tree is bounded before its
first file: `TreeWalk` bounds its directories, and this module the bytes of its files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.core import EMPTY_DIGEST, Blob, Digest, NotFoundError
from hpcc.ports import BlobStore
from hpcc.reapi.limits import MAX_TREE_BYTES, ReapiError
from hpcc.reapi.output_tree import output_tree_files
from hpcc.reapi.result import ResultOutput
from hpcc.reapi.tree import TreeWalk
from hpcc.rpc.base.errors import MissingBlobsError
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
    """Transfers of one bot. `cas` returns the client of the server that is called now."""

    def __init__(
        self, cas: Callable[[], ReapiClient], store: BlobStore, limits: TransferLimits
    ) -> None:
        self._cas, self._store, self._limits = cas, store, limits
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
        return await self._store.get(digest)

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
                walk.feed(digest, (await self._store.get(digest)).data)
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
        missing = await self._cas().find_missing(wanted - {EMPTY_DIGEST})
        for chunk in _chunks(missing):
            async with self._room(chunk):
                blobs = [extra.get(d) or await self._store.get(d) for d in chunk]
                await self._cas().upload(blobs)

    async def _fetch(self, digests: Iterable[Digest]) -> None:
        """Bring blobs into the store that are not there."""
        for chunk in _chunks(await self._store.find_missing(digests)):
            async with self._room(chunk):
                try:
                    found = await self._cas().download(chunk)
                except NotFoundError:
                    # Which ones: the client then uploads all of them, and tries once.
                    missing = await self._cas().find_missing(chunk)
                    raise MissingBlobsError(tuple(sorted(missing or chunk))) from None
                for blob in found.values():
                    await self._store.put(blob)
                found.clear()

    def _room(self, chunk: Sequence[Digest]) -> asyncio.Semaphore | asyncio.Lock:
        """Return what bounds the memory of a chunk in transfer."""
        is_large = sum(digest.size_bytes for digest in chunk) > _CHUNK_BYTES
        return self._large if is_large else self._chunks


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
