"""Build packs in a daemon: look-ups in what was pulled, pulls by themselves, and pushes.

Problem: after `git pull` each file costs a request to the remote cache. At 100 ms a request, a
build is slower than the cache that it has.

Rule: after a local miss, `find` looks for the record in the packs of the checkout and checks it as
an entry that was fetched. `saw` makes a thread look at HEAD, at most every few seconds. If HEAD is
new, the thread pulls the pack of its nearest ancestor, once per commit. `push` sends what this
daemon compiled itself, and the records of packs that this run used, as they were signed. With a
farm it sends what workers signed for everybody (`farm_made`), and `hpcc.cache.packs.farm` looks
such entries up.

Example: CI pushed the pack of commit A. Ann pulls B, whose parent is A. Her first miss starts the
download; while it runs, misses ask for single entries.

What must never happen: a compile waits for a pack, fails because of one, or gets a record whose
signer does not count for its checkout.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from hpcc.cache.base.counters import Counters
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.git.ancestors import ancestors_of, head_of
from hpcc.cache.git.reading import GitError
from hpcc.cache.key.share import Share
from hpcc.cache.packs.chunks import PackRecord, open_record, row_name, signed_record
from hpcc.cache.packs.index import COMMIT, PackError
from hpcc.cache.packs.local import LocalPacks, root_id
from hpcc.cache.packs.run_log import Note, OfFarm, RunLog, Taken
from hpcc.cache.packs.transfer import Team, Transfer, pull, push
from hpcc.cache.results.results import Results
from hpcc.cache.signed.entry import Content, EntryName, Judge
from hpcc.cache.signed.network import Network
from hpcc.cache.signed.trust import TrustBook
from hpcc.core import CallerError, HpccError
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import CacheKey, SigningKey
from hpcc.store.private import PrivateStore

_log: Final = logging.getLogger("hpcc.daemon.packs")
PREFIX: Final = "remote-cache.pack"
_FARM_ENTRY: Final = b"farm-entry-1"
# A person who changes branches waits longer than that before the next build.
_LOOK_SECONDS: Final = 5.0
_MAX_WAITING: Final = 8
_MAX_LOOKED: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PacksConfig:
    """Which packs, who signs here, and limits. `place` is that of `RemoteCacheConfig`.

    `home` ends the search for a repository. `total_seconds` is for one pull or push.
    """

    namespace: str
    place: str
    home: bytes
    max_cache_bytes: int
    is_automatic: bool = True
    signing: SigningKey | None = field(default=None, repr=False)
    total_seconds: float = 600.0


class Packs:
    """Thread-safe. `find` and `saw` never raise for what a place or a clone does."""

    def __init__(
        self,
        network: Network,
        book: TrustBook,
        local: LocalPacks,
        results: Results,
        store: PrivateStore,
        counters: Counters,
        monotonic: Callable[[], float],
        config: PacksConfig,
    ) -> None:
        self._network, self._book, self._local = network, book, local
        self._results, self._store, self._counters = results, store, counters
        self._monotonic, self._config = monotonic, config
        self._log = RunLog()
        self._lock = threading.Lock()
        self._looked: dict[bytes, float] = {}
        self._waiting: queue.Queue[tuple[bytes, frozenset[str]]] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._pushing: Future[Transfer] | None = None
        self._lost = 0

    def find(
        self, share: Share, name: EntryName, judge: Judge
    ) -> tuple[CacheKey, Content] | RefusedEntry | None:
        """Return what a pack of this checkout has for a compile; None if nothing."""
        root = self._root(share.checkout.root)
        data = self._local.find(root, row_name(name, self._config.namespace))
        if data is None:
            return None
        found = open_record(data, name, self._config.namespace, judge)
        if not isinstance(found, RefusedEntry) and self._config.signing is not None:
            self._log.taken(share.checkout.root, name, data)
        return found

    def compiled(self, share: Share, name: EntryName, content: Content) -> None:
        """Note a result that was compiled just now; a push may send it."""
        if self._config.signing is not None:
            self._log.compiled(share.checkout.root, name, content)

    @property
    def namespace(self) -> str:
        """The namespace of names in the place."""
        return self._config.namespace

    @property
    def may_push(self) -> bool:
        """Whether this daemon signs packs."""
        return self._config.signing is not None

    def farm_entry(self, root: bytes, row: bytes) -> bytes:
        """Return what a pack of this checkout has of a farm's result, unchecked; b"" if nothing."""
        return self._local.find(self._root(root), row) or b""

    def farm_made(self, root: bytes, row: bytes, entry: bytes) -> None:
        """Keep a result of the farm that may serve everybody; a push may send it."""
        key = hashlib.sha256(encode_fields([_FARM_ENTRY, root, row])).digest()
        if self.may_push and self._store.put(key, entry):
            self._log.of_farm(root, row, entry, key)

    def farm_taken(self, root: bytes, row: bytes, entry: bytes) -> None:
        """Note a farm's result that came from a pack, and was checked and used."""
        if self.may_push:
            self._log.of_farm(root, row, entry, b"")

    def saw(self, share: Share) -> None:
        """Look in the background whether this checkout is at another commit."""
        self.saw_root(share.checkout.root, share.revoked)

    def saw_root(self, root: bytes, revoked: frozenset[str]) -> None:
        """See `saw`; `revoked` are the ids that the checkout's marker revokes."""
        if not self._config.is_automatic:
            return
        now = self._monotonic()
        with self._lock:
            if now - self._looked.get(root, float("-inf")) < _LOOK_SECONDS:
                return
            if len(self._looked) >= _MAX_LOOKED:
                self._looked.clear()
            self._looked[root] = now
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hpcc-packs", daemon=True)
                self._thread.start()
        with suppress(queue.Full):  # the next miss after a few seconds comes again
            self._waiting.put_nowait((root, revoked))

    def _run(self) -> None:
        while True:
            root, revoked = self._waiting.get()
            try:
                self._pull_head(root, revoked)
            except Exception:  # noqa: BLE001 - the root of a thread; the next commit is tried again
                _log.exception("a pull failed")
                self._counters.add(f"{PREFIX}-failed.internal-error")
            finally:
                self._waiting.task_done()

    def _pull_head(self, root: bytes, revoked: frozenset[str]) -> None:
        try:
            head = head_of(root, self._config.home)
        except GitError:
            return
        if not self._book.keys(root, revoked) or self._local.was_asked(self._root(root), head):
            return
        commits = ancestors_of(root, self._config.home, head)
        team = self._team(root, revoked)
        try:
            with self._local.pulling():
                future = self._network.submit(
                    lambda objects: pull(
                        objects, team, self._local, self._root(root), commits, self._make_room
                    )
                )
                report = self._wait(future)
        except (HpccError, OSError, TimeoutError, CancelledError) as error:
            self._failed(error)
            return
        self._counters.add(f"{PREFIX}-pulled")
        self._counters.add(f"{PREFIX}-bytes-read", report.moved_bytes)
        for refusal in report.refused:
            self._counters.add(f"{refusal.prefix}.{refusal}")
        _log.info(
            "pulled a pack: %d results, %d of %d chunks, %d bytes",
            report.entries, report.moved_chunks, report.chunks, report.moved_bytes,
        )  # fmt: skip

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, PackError):
            self._counters.add(f"{error.refusal.prefix}.{error.refusal}")
            _log.warning("a pack is not used: %s", error)
            return
        reason = error.reason if isinstance(error, HpccError) else type(error).__name__
        if reason == "no-pack":
            self._counters.add(f"{PREFIX}-absent")
            return
        self._counters.add(f"{PREFIX}-failed.{reason}")
        _log.warning("no pack was moved: %s", reason)

    def _wait(self, future: Future[Transfer]) -> Transfer:
        try:
            return future.result(self._config.total_seconds)
        except TimeoutError:
            future.cancel()
            raise

    def _make_room(self, need: int) -> None:
        """Evict results that were not used for the longest time, so that all fits the cache."""
        self._store.trim(max(0, self._config.max_cache_bytes - self._local.size_bytes - need))

    def _root(self, root: bytes) -> str:
        return root_id(root, self._config.place)

    def _team(self, root: bytes, revoked: frozenset[str]) -> Team:
        return Team(self._config.namespace, partial(self._book.judge, root, revoked))

    def command(self, words: list[str]) -> dict[str, object]:
        """Answer `push ROOT COMMIT MODE` (starts it) or `push-state`.

        Raises:
            CallerError: it is malformed, or nothing can be pushed from here.
        """
        match words:
            case ["push", root, commit, ("all" | "missing") as mode] if COMMIT.fullmatch(commit):
                return self._start(root.encode("utf-8", "surrogateescape"), commit, mode == "all")
            case ["push-state"]:
                return self._state()
            case _:
                raise CallerError("unknown command to the daemon", reason="malformed-frame")

    def _start(self, root: bytes, commit: str, sends_all: bool) -> dict[str, object]:  # noqa: FBT001 - a word of the command
        signing = self._config.signing
        if signing is None:
            raise CallerError(
                'only a daemon with mode = "write" in [cache.remote] pushes', reason="pack-read"
            )
        if self._book.is_expired(signing.key):
            raise CallerError("the signing key is expired", reason="expired-key")
        notes = self._log.of(root)
        if not notes:
            raise CallerError(
                "this daemon has compiled nothing that is shared in this checkout since it started "
                "(on a farm: nothing that serves everybody, as with publish_fresh)",
                reason="pack-empty",
            )
        with self._lock:
            if self._pushing is not None and not self._pushing.done():
                raise CallerError("another push is running", reason="pack-busy")
            self._lost = 0
            records = [self._record(root, note, signing) for note in notes]
            team = Team(self._config.namespace, partial(_same_or, signing.key, self._judge(root)))
            self._pushing = self._network.submit(
                lambda objects: push(objects, team, signing, commit, records, sends_all=sends_all)
            )
        return {"results": len(notes)}

    def _judge(self, root: bytes) -> Judge:
        return partial(self._book.judge, root, frozenset())

    def _record(self, root: bytes, note: Note, signing: SigningKey) -> PackRecord:

        def read() -> bytes | None:
            data = self._read(root, note, signing)
            self._lost += data is None
            return data

        if isinstance(note, OfFarm):
            return PackRecord(note.row, (_FARM_ENTRY, b""), read)
        name = note.name
        return PackRecord(row_name(name, self.namespace), (name.share_key, name.source), read)

    def _read(self, root: bytes, note: Note, signing: SigningKey) -> bytes | None:
        namespace = self._config.namespace
        if isinstance(note, Taken | OfFarm):
            data = self._unchanged(root, note)
            is_same = data is not None and hashlib.sha256(data).digest() == note.digest
            return data if is_same else None
        sets = self._results.sets(note.name.share_key)
        inputs = next((s for s in sets if s.result_key == note.result_key), None)
        result = None if inputs is None else self._results.result(note.result_key)
        if inputs is None or result is None:
            return None
        body = Content(inputs, result._replace(origin=b"")).encode()
        # Signed is what this daemon compiled, not what is under its name now.
        if hashlib.sha256(body).digest() != note.digest:
            return None
        return signed_record(note.name, namespace, body, signing)

    def _unchanged(self, root: bytes, note: Taken | OfFarm) -> bytes | None:
        """Return what the store or a pack has now under a note's name."""
        if isinstance(note, OfFarm) and note.store_key:
            return self._store.get(note.store_key)
        row = note.row if isinstance(note, OfFarm) else row_name(note.name, self.namespace)
        return self._local.find(self._root(root), row)

    def _state(self) -> dict[str, object]:
        future = self._pushing
        if future is None or not future.done():
            return {"is_running": future is not None}
        error = CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            self._failed(error)
            return {"is_running": False, "error": str(error) or type(error).__name__}
        report = future.result()
        return {
            "is_running": False,
            "entries": report.entries,
            "chunks": report.chunks,
            "raw_bytes": report.raw_bytes,
            "sent_chunks": report.moved_chunks,
            "sent_bytes": report.moved_bytes,
            "lost": self._lost,
        }


def _same_or(key: CacheKey, judge: Judge, kid: str) -> CacheKey | RefusedEntry:
    """Return the key that signs here, or whatever counts for the checkout."""
    return key if kid == key.kid else judge(kid)
