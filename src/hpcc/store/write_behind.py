"""Writes to a shared store after the answer: blobs first, then the results that refer to them.

If the process dies, no result in the shared store refers to a blob that was not written.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hpcc.core import Blob, Digest, HpccError
from hpcc.ports import ActionCache, BlobStore


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBehindConfig:
    """Limits of the queue. Beyond them blobs and results stay local; each drop is counted."""

    max_pending_bytes: int = 256 << 20
    max_pending_results: int = 1024
    writers: int = 8


class WriteBehindBlobStore:
    """`BlobStore` whose `put` returns at once; `run` writes the blobs to `inner`."""

    def __init__(
        self, inner: BlobStore, counters: Counter[str], config: WriteBehindConfig | None = None
    ) -> None:
        self._inner, self._counters = inner, counters
        self._config = config or WriteBehindConfig()
        self._waiting: OrderedDict[Digest, Blob] = OrderedDict()
        self._writing: dict[Digest, Blob] = {}
        self._pending_bytes = 0
        self._changed = asyncio.Condition()

    async def get(self, digest: Digest) -> Blob:
        pending = self._waiting.get(digest) or self._writing.get(digest)
        return pending or await self._inner.get(digest)

    async def put(self, blob: Blob) -> None:
        if blob.digest in self._waiting or blob.digest in self._writing:
            return
        size = blob.digest.size_bytes
        if self._pending_bytes + size > self._config.max_pending_bytes:
            self._counters["lost-blob.queue-full"] += 1
            return
        self._pending_bytes += size
        self._waiting[blob.digest] = blob
        await self._notify()

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        absent = [d for d in digests if d not in self._waiting and d not in self._writing]
        return await self._inner.find_missing(absent) if absent else frozenset()

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._config.writers):
                group.create_task(self._writer())

    async def settle(self, digests: Iterable[Digest], source: BlobStore) -> None:
        """Return when `inner` has all `digests`; dropped or lost ones are copied from `source`.

        Raises:
            InfrastructureError: `inner` cannot store them now.
            NotFoundError: `source` lacks one of them, too.
        """
        wanted = frozenset(digests)
        async with self._changed:
            await self._changed.wait_for(
                lambda: not any(d in self._waiting or d in self._writing for d in wanted)
            )
        for digest in await self._inner.find_missing(wanted):
            await self._inner.put(await source.get(digest))

    async def _writer(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                digest, blob = self._waiting.popitem(last=False)
                self._writing[digest] = blob
            try:
                await self._inner.put(blob)
            except HpccError as error:
                self._counters[f"lost-blob.{error.reason}"] += 1
            finally:
                # No await here, so that a cancel cannot leave the size counted.
                self._pending_bytes -= digest.size_bytes
                del self._writing[digest]
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Entry:
    cache: ActionCache
    action: Digest
    record: bytes


class Publisher:
    """Publishes results one after the other, each after the blobs that it refers to.

    `source` has all blobs of a result; `refers_to` returns their digests from a record.
    """

    def __init__(
        self,
        blobs: WriteBehindBlobStore,
        source: BlobStore,
        counters: Counter[str],
        refers_to: Callable[[bytes], Iterable[Digest]],
        config: WriteBehindConfig | None = None,
    ) -> None:
        self._blobs, self._source, self._counters = blobs, source, counters
        self._refers_to, self._config = refers_to, config or WriteBehindConfig()
        self._queue: deque[_Entry] = deque()
        self._current: _Entry | None = None
        self._changed = asyncio.Condition()

    async def offer(self, cache: ActionCache, action: Digest, record: bytes) -> None:
        """Queue a result that is stored locally. With a full queue it is dropped and counted."""
        if len(self._queue) >= self._config.max_pending_results:
            self._counters["lost-result.queue-full"] += 1
            return
        self._queue.append(_Entry(cache, action, record))
        await self._notify()

    def pending_or_none(self, cache: ActionCache, action: Digest) -> bytes | None:
        """Return the newest record that still waits to be published, or None."""
        entries = [*([self._current] if self._current else []), *self._queue]
        found = [e.record for e in entries if e.cache is cache and e.action == action]
        return found[-1] if found else None

    async def wait_idle(self) -> None:
        """Wait until the queue is empty."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._queue and self._current is None)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._queue))
                entry = self._current = self._queue.popleft()
            try:
                await self._publish(entry)
            except HpccError as error:
                self._counters[f"lost-result.{error.reason}"] += 1
            finally:
                self._current = None
            await self._notify()

    async def _publish(self, entry: _Entry) -> None:
        digests = tuple(self._refers_to(entry.record))
        await self._blobs.settle(digests, self._source)
        await entry.cache.put(entry.action, entry.record)
        self._counters["published"] += 1

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class PublishingActionCache:
    """`ActionCache` whose `put` queues the result at the publisher."""

    def __init__(self, inner: ActionCache, publisher: Publisher) -> None:
        self._inner, self._publisher = inner, publisher

    async def get(self, action: Digest) -> bytes:
        pending = self._publisher.pending_or_none(self._inner, action)
        return await self._inner.get(action) if pending is None else pending

    async def put(self, action: Digest, record: bytes) -> None:
        await self._publisher.offer(self._inner, action, record)
