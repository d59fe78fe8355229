"""A team's remote cache as the local cache uses it: look up, fetch after a miss, offer after it.

Problem: a team without a farm has a bucket. What is in the bucket may come from a thief, and the
bucket may be slow, full or gone. A build must neither trust it nor wait for it.

Rule:

- `keys` names the local keys of results that were fetched before. There is one for each signing key
  that counts for the checkout, so what a revoked key signed is never looked up again.
- `fetch` is called after a local miss. It sends one request with one time limit, checks signatures
  (`entry`), and stores the result whose inputs match the checkout now. The local look-up follows.
- `offer` is called for a result that this daemon has just compiled. A result that was fetched, or
  that an earlier daemon made, is never signed. Uploads run in the background, from a bounded queue.

Example: CI compiles a.c, signs the result and uploads it. Ann's daemon misses, fetches it, finds
CI's key confirmed for /home/ann/project, and her second checkout hits without a request.

What must never happen: a compile fails or waits longer than the time limit because of the remote
cache, or a result is signed that this daemon did not compile.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from hpcc.cache.base.counters import Counters
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet, make_set
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.key.share import Share
from hpcc.cache.results.results import Result, Results, signed_origin
from hpcc.cache.results.share_results import FETCHED, Fetched
from hpcc.cache.signed.asking import Asking, Turn
from hpcc.cache.signed.entry import (
    MAX_OBJECT_BYTES,
    Content,
    EntryName,
    SignedRecord,
    check,
    join_records,
    open_object,
    sign,
    split_records,
)
from hpcc.cache.signed.network import Network
from hpcc.cache.signed.outline_upload import OutlineUpload
from hpcc.cache.signed.pack_source import PackSource
from hpcc.cache.signed.trust import TrustBook
from hpcc.core import HpccError, InfrastructureError, IntegrityError, NotFoundError
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import CacheKey, SigningKey
from hpcc.store.objects import Objects

_log: Final = logging.getLogger("hpcc.daemon.remote-cache")
PREFIX: Final = "remote-cache"
_LOCAL_FORMAT: Final = b"imported-1"
_WRITERS: Final = 4
_ANSWERS: Final = frozenset({FETCHED, "absent", "other-inputs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCacheConfig:
    """Where results are, who signs here, and limits.

    `place` names the service in local keys. `signing` is None for a reader. One read may take
    `read_seconds`, one upload `write_seconds`. With `has_outlines` a writer also stores what
    `hpcc explain` compares with.
    """

    namespace: str
    place: str
    signing: SigningKey | None = field(default=None, repr=False)
    read_seconds: float = 5.0
    write_seconds: float = 60.0
    max_unpacked_bytes: int = 256 << 20
    has_outlines: bool = True
    max_pending: int = 1024
    max_pending_bytes: int = 256 << 20


class RemoteCache:
    """Thread-safe. No method raises for what the service does."""

    def __init__(
        self,
        network: Network,
        book: TrustBook,
        results: Results,
        memo: FileMemo,
        counters: Counters,
        asking: Asking,
        config: RemoteCacheConfig,
    ) -> None:
        self.network: Final = network
        self.book: Final = book
        self._results, self._memo = results, memo
        self._packs: PackSource | None = None
        self._counters, self._asking, self._config = counters, asking, config
        self._namespace = config.namespace
        self._writers = asyncio.Semaphore(_WRITERS)
        self._lock = threading.Lock()
        self._pending, self._pending_bytes = 0, 0
        self._done, self._missing = 0, 0
        self._told: set[str] = set()
        self._outlines = OutlineUpload(config.namespace, config.read_seconds, book.now)

    @property
    def signing(self) -> SigningKey | None:
        """The key that signs here; None for a reader."""
        return self._config.signing

    def look_into(self, packs: PackSource) -> None:
        """Look into these packs before the service is asked."""
        self._packs = packs

    def gauges(self) -> dict[str, int]:
        """Return how many results wait, and what this daemon uploaded or lost."""
        with self._lock:
            return {
                f"{PREFIX}.pending": self._pending,
                f"{PREFIX}.daemon-done": self._done,
                f"{PREFIX}.daemon-lost": self._missing,
            }

    def keys(self, share: Share) -> tuple[bytes, ...]:
        """Return the local keys under which fetched results of this compile are stored."""
        keys = self.book.keys(share.checkout.root, share.revoked)
        return tuple(self._local_key(share, key) for key in keys)

    def fetch(self, share: Share, source: bytes | None) -> Fetched:
        """Ask the remote cache for this compile; `source` is the digest of its source now.

        The word is `FETCHED` if a result whose inputs match this checkout may have been stored,
        else why there is none.
        """
        keys = self.book.keys(share.checkout.root, share.revoked)
        if not keys:
            self._counters.add(f"{PREFIX}.no-keys")
            return Fetched("no-keys")
        if source is None:
            return Fetched("no-source")
        name = EntryName(share.key, source, share.identity)
        packed = None if self._packs is None else self._from_pack(self._packs, share, name)
        if packed is not None:
            return packed
        # Another checkout may trust other keys, so its answer would not be this one's.
        what = (name, share.checkout.root, keys)
        turn = self._asking.begin(what)
        if turn is not Turn.ASK:
            return Fetched(FETCHED if turn is Turn.WAITED else "asked-before")
        fetched = Fetched("")
        try:
            fetched = self._ask(share, name)
        finally:
            self._asking.end(what, is_answered=fetched.word in _ANSWERS)
        return fetched

    def _ask(self, share: Share, name: EntryName) -> Fetched:
        if not self._asking.admits():
            self._counters.add(f"{PREFIX}.skipped")
            return Fetched("away")
        try:
            data = self._get(name.object_name(self._namespace))
        except NotFoundError:
            self._asking.worked()
            self._counters.add(f"{PREFIX}.absent")
            return Fetched("absent")
        except IntegrityError as error:  # it does not end, or is another thing
            self._asking.worked()
            return Fetched(self._refused(RefusedEntry.MALFORMED, error.reason))
        except (HpccError, TimeoutError, CancelledError) as error:
            return Fetched(self._failed(error))
        except BaseException:
            self._asking.failed("internal-error")
            raise
        self._asking.worked()
        self._counters.add(f"{PREFIX}.bytes-read", len(data))
        judge = partial(self.book.judge, share.checkout.root, share.revoked)
        limit = self._config.max_unpacked_bytes
        opened = open_object(data, name, self._namespace, judge, limit)
        for reason in opened.refused:
            self._refused(reason, reason)
        for key, content in opened.contents:
            if (kept := self._keep(share, key, content)) is not None:
                self._counters.add(f"{PREFIX}.found")
                return kept
        if not opened.contents:
            return Fetched(f"refused.{opened.refused[0]}")
        self._counters.add(f"{PREFIX}.other-inputs")
        return Fetched("other-inputs")

    def _from_pack(self, packs: PackSource, share: Share, name: EntryName) -> Fetched | None:
        """Store what a pack has for this compile; None unless its inputs match now."""
        packs.saw(share)
        judge = partial(self.book.judge, share.checkout.root, share.revoked)
        found = packs.find(share, name, judge)
        if isinstance(found, RefusedEntry):
            self._refused(found, "in a pack")
            return None
        kept = None if found is None else self._keep(share, *found)
        if kept is not None:
            self._counters.add(f"{PREFIX}.pack-found")
        return kept

    def _get(self, name: str) -> bytes:
        seconds = self._config.read_seconds

        async def get(objects: Objects) -> bytes:
            async with asyncio.timeout(seconds):
                return await objects.get(name, MAX_OBJECT_BYTES)

        future = self.network.submit(get)
        try:
            # The loop has the same limit. This one also holds if the loop itself is stuck.
            return future.result(seconds + 1.0)
        except TimeoutError:
            future.cancel()
            raise

    def _keep(self, share: Share, key: CacheKey, content: Content) -> Fetched | None:
        """Store a result if its inputs match this checkout now; None if it is not stored."""
        inputs, checkout = content.inputs, share.checkout
        if not checkout.spelled_set(inputs).holds(self._memo):
            return None
        local = self._local_key(share, key)
        # The name of the result is computed here: an entry cannot choose which one it replaces.
        own = make_set(local, inputs.files, inputs.present, inputs.absences, twins=inputs.twins)
        result = content.result._replace(origin=signed_origin(key.kid))
        if self._results.keep_set(local, own, result) is None:
            return None
        return Fetched(FETCHED, local, own, result)

    def _local_key(self, share: Share, key: CacheKey) -> bytes:
        fields = [_LOCAL_FORMAT, share.key, key.kid.encode(), self._config.place.encode()]
        return hashlib.sha256(encode_fields(fields)).digest()

    def _refused(self, reason: RefusedEntry, detail: str) -> str:
        self._counters.add(f"{reason.prefix}.{reason}")
        self._tell(f"an entry was refused: {reason.text} ({detail})")
        return f"refused.{reason}"

    def _failed(self, error: BaseException) -> str:
        reason = _reason(error)
        self._counters.add(f"{PREFIX}.failed.{reason}")
        if self._asking.failed(reason):
            _log.warning("the remote cache is not asked for a while: %s", reason)
        return f"failed.{reason}"

    def _tell(self, text: str) -> None:
        """Log each text once: a hostile bucket must not fill the disk."""
        with self._lock:
            is_new = text not in self._told
            self._told.add(text)
        if is_new:
            _log.warning("remote cache: %s", text)

    def offer(self, prepared: Prepared, inputs: InputSet, result: Result) -> None:
        """Sign and upload a result that was compiled just now, in the background.

        `inputs` and `result` have marks in place of the checkout's root.
        """
        signing, share = self._config.signing, prepared.share
        if signing is None or share is None or not inputs.files:
            return
        name = EntryName(share.key, inputs.files[0][1], share.identity)
        # Where it was made stays private, and would make equal results differ.
        content = Content(inputs, result._replace(origin=b""))
        if self._packs is not None:
            self._packs.compiled(share, name, content)
        if self.book.is_expired(signing.key):
            self._lost("expired-key")
            return
        size = result.size_bytes
        with self._lock:
            is_full = (
                self._pending >= self._config.max_pending
                or self._pending_bytes + size > self._config.max_pending_bytes
            )
            if not is_full:
                self._pending += 1
                self._pending_bytes += size
        if is_full:
            self._lost("queue-full")
            return
        try:
            future = self.network.submit(partial(self._upload, name, content, signing, prepared))
        except HpccError as error:
            self._uploaded(size, error)
            return
        future.add_done_callback(
            lambda done: self._uploaded(
                size, CancelledError() if done.cancelled() else done.exception()
            )
        )

    async def _upload(
        self,
        name: EntryName,
        content: Content,
        signing: SigningKey,
        prepared: Prepared,
        objects: Objects,
    ) -> None:
        async with self._writers:
            record = await asyncio.to_thread(sign, name, self._namespace, content, signing)
            if len(join_records(record, ())) > MAX_OBJECT_BYTES:
                raise InfrastructureError("the result is too large", reason="object-size")
            if not self._asking.admits():
                raise InfrastructureError("the remote cache is away", reason="store-away")
            try:
                async with asyncio.timeout(self._config.write_seconds):
                    is_new = await self._write(name, record, signing.key, objects)
            except (HpccError, TimeoutError) as error:
                self._asking.failed(_reason(error))
                raise
            except BaseException:
                self._asking.failed("internal-error")
                raise
            self._asking.worked()
            if is_new and self._config.has_outlines:
                await self._write_outline(prepared, content, signing, objects)

    async def _write_outline(
        self, prepared: Prepared, content: Content, signing: SigningKey, objects: Objects
    ) -> None:
        """Store what others compare a miss with. The upload has succeeded without it."""
        try:
            await self._outlines.store(prepared, content, signing, objects)
        except (HpccError, TimeoutError) as error:
            self._counters.add(f"{PREFIX}.outline-lost.{_reason(error)}")

    async def _write(
        self, name: EntryName, record: SignedRecord, key: CacheKey, objects: Objects
    ) -> bool:
        """Store a record with older ones; return whether the place did not have it."""
        where = name.object_name(self._namespace)
        try:
            there = split_records(await objects.get(where, MAX_OBJECT_BYTES))
        except (NotFoundError, IntegrityError):
            there = ()
        # Only records of this very key, which are kept as they were signed.
        own = tuple(r for r in there if check(r, name, self._namespace, partial(_same, key)) == key)
        if own and own[0].header == record.header:
            self._counters.add(f"{PREFIX}.unchanged")
            return False
        data = join_records(record, own)
        await objects.put(where, data)
        self._counters.add(f"{PREFIX}.uploaded")
        self._counters.add(f"{PREFIX}.bytes-written", len(data))
        return True

    def _uploaded(self, size: int, error: BaseException | None) -> None:
        if error is not None:
            self._lost(_reason(error))
        with self._lock:
            # Last: who sees that nothing waits also sees what was lost.
            self._done += error is None
            self._pending -= 1
            self._pending_bytes -= size

    def _lost(self, reason: str) -> None:
        with self._lock:
            self._missing += 1
        self._counters.add(f"{PREFIX}.lost.{reason}")
        self._tell(f"a result was not uploaded: {reason}")

    def close(self) -> None:
        """End the uploads; what still waits is lost, and counted."""
        self.network.close()


def _same(key: CacheKey, kid: str) -> CacheKey | RefusedEntry:
    return key if kid == key.kid else RefusedEntry.UNKNOWN_KEY


def _reason(error: BaseException) -> str:
    if isinstance(error, HpccError):
        return error.reason
    if isinstance(error, TimeoutError):
        return "store-timeout"
    return "closed" if isinstance(error, CancelledError) else "internal-error"
