"""Which keys may sign results: listed when a worker registers, until revoked or long unused.

They outlive their workers, whose results stay good in the stores.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from hpcc.core import CallerError, HpccError, NotFoundError, PolicyError
from hpcc.core.memo import BoundedMemo
from hpcc.identity.results import check_possession, result_key_id
from hpcc.ports import Clock, ConflictError, ControlStore, ControlStoreError, Entry
from hpcc.rpc.scheduler.api import Registration
from hpcc.scheduler.base.config import SchedulerConfig

_log: Final = logging.getLogger(__name__)
SPACE: Final = "result-key"
# A worker's registration is written anew no more often than this.
TOUCH_SECONDS: Final = 86_400.0
# What another replica, or the command line, wrote counts here after this at the latest.
REREAD_SECONDS: Final = 15.0
MAX_LEARNED_A_SECOND: Final = 32
MAX_LISTED: Final = 10_000
# A key that is not known may have been listed by another replica just now.
UNKNOWN_SECONDS: Final = 1.0
_TRIES: Final = 3
# Workers that are looked at in one go: routes wait meanwhile.
_AT_ONCE: Final = 200
_KEY: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedKey:
    """A key, 64 hex digits, the worker that showed it last, and when, in seconds since the epoch.

    `revoked_at` is 0 for a good one. A revoked one is kept for ever, so that it never comes back.
    """

    key: str
    worker: str
    first_at: float
    last_at: float
    revoked_at: float = 0.0

    @classmethod
    def of(cls, value: bytes) -> ListedKey:
        """Read an entry.

        Raises:
            ControlStoreError: it is none of ours.
        """
        try:
            table = json.loads(value)
            texts = [table["key"], table["worker"]]
            times = [table["first_at"], table["last_at"], table["revoked_at"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ControlStoreError("an entry of a result key has another form") from error
        if (
            not all(isinstance(t, str) for t in texts)
            or not all(isinstance(t, float) for t in times)
            or not _KEY.fullmatch(texts[0])
        ):
            raise ControlStoreError("an entry of a result key has another form")
        return cls(
            key=texts[0],
            worker=texts[1],
            first_at=times[0],
            last_at=times[1],
            revoked_at=times[2],
        )

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()


class ResultKeyTable:
    """The farm's result keys, read from the control store and kept in memory while it is away."""

    def __init__(self, store: ControlStore, clock: Clock, lifetime_seconds: float) -> None:
        self._store, self._clock, self._lifetime = store, clock, lifetime_seconds
        self._keys: dict[str, ListedKey] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._learning_since, self._learned = float("-inf"), 0
        # What was read of which version of an entry: only what changed is read again.
        self._read: dict[str, tuple[int, ListedKey]] = {}
        # Ids of keys, which take time to compute.
        self._ids: BoundedMemo[bytes, str] = BoundedMemo(MAX_LISTED)

    async def note(self, registration: Registration) -> str:
        """List the key of a worker that registers; return its id.

        Raises:
            CallerError: the worker has not shown that it holds the key, or there are too many.
            PolicyError: it was revoked.
            ControlStoreError: it is new, and cannot be kept now.
        """
        worker = registration.worker_id
        key = registration.result_key
        kid = check_possession(key, registration.result_proof, worker, registration.certificate)
        await self._reread()
        for _ in range(_TRIES):
            try:
                await self._keep(kid, key.hex(), worker)
            except ConflictError:
                continue
            except ControlStoreError as error:
                if kid not in self._keys or self.is_revoked(kid):
                    raise
                _log.warning("result key of worker %s is not renewed: %s", worker, error)
            return kid
        raise ControlStoreError("the result key changes all the time")

    async def listed(self, key_ids: tuple[str, ...]) -> Mapping[str, bytes]:
        """Return the public keys of those that are good now."""
        await self._reread()
        if any(kid not in self._keys for kid in key_ids):
            await self._reread(is_wanting=True)
        for kid in key_ids:
            if kid not in self._keys:
                await self._learn(kid)
        found = {kid: self._keys[kid] for kid in key_ids if kid in self._keys}
        return {kid: bytes.fromhex(k.key) for kid, k in found.items() if self._is_good(k)}

    async def all(self) -> Mapping[str, tuple[ListedKey, bool]]:
        """Return every key by its id, and whether it is good now."""
        self._read_at = float("-inf")
        await self._reread()
        return {kid: (key, self._is_good(key)) for kid, key in sorted(self._keys.items())}

    async def revoke(self, kid: str) -> ListedKey:
        """Revoke a key for ever; its results are misses.

        Raises:
            NotFoundError: no worker ever registered it.
        """
        for _ in range(_TRIES):
            entry = await self._store.entry_or_none(SPACE, kid)
            if entry is None:
                raise NotFoundError(f"no worker ever registered the result key {kid}")
            key = ListedKey.of(entry.value)
            if not key.revoked_at:
                key = replace(key, revoked_at=self._clock.now())
                try:
                    await self._store.put(SPACE, kid, key.encode(), expect=entry.version)
                except ConflictError:
                    continue
            self._keys[kid] = key
            return key
        raise ControlStoreError("the result key changes all the time")

    async def tend(self, workers: Iterable[Registration]) -> tuple[str, ...]:
        """Keep the keys of living workers listed; return the workers whose key was revoked."""
        await self._reread()
        revoked: list[str] = []
        for number, worker in enumerate(workers):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            kid = self._id_or_none(worker.result_key)
            if kid is None:
                continue
            known = self._keys.get(kid)
            if known is not None and known.revoked_at:
                revoked.append(worker.worker_id)
            elif known is None or self._clock.now() - known.last_at >= TOUCH_SECONDS:
                try:
                    await self._keep(kid, worker.result_key.hex(), worker.worker_id)
                except HpccError as error:
                    _log.warning("result key of worker %s: %s", worker.worker_id, error)
        return tuple(revoked)

    def _id_or_none(self, key: bytes) -> str | None:
        """Return the id of a key; None of one that another scheduler told, of another version."""
        kid = self._ids.get(key)
        if kid is None:
            try:
                kid = result_key_id(key)
            except ValueError:
                return None
            self._ids[key] = kid
        return kid

    def is_revoked(self, kid: str) -> bool:
        return kid in self._keys and self._keys[kid].revoked_at > 0

    def _is_good(self, key: ListedKey) -> bool:
        return not key.revoked_at and self._clock.now() - key.last_at < self._lifetime

    async def _keep(self, kid: str, key: str, worker: str) -> None:
        now = self._clock.now()
        entry = await self._store.entry_or_none(SPACE, kid)
        if entry is None:
            await self._make_room()
            listed = ListedKey(key=key, worker=worker, first_at=now, last_at=now)
            await self._store.put(SPACE, kid, listed.encode(), expect=0)
        else:
            listed = ListedKey.of(entry.value)
            if listed.revoked_at:
                self._keys[kid] = listed
                raise PolicyError(
                    f"result key {kid} was revoked: remove it from the worker's keys directory, "
                    "and it makes a new one",
                    reason="result-key-revoked",
                )
            if listed.worker != worker or now - listed.last_at >= TOUCH_SECONDS:
                listed = replace(listed, worker=worker, last_at=now)
                await self._store.put(SPACE, kid, listed.encode(), expect=entry.version)
        self._keys[kid] = listed

    async def _make_room(self) -> None:
        """Forget keys that are no good any more by age.

        Raises:
            CallerError: there are too many all the same.
        """
        if len(self._keys) < MAX_LISTED:
            return
        for kid, key in list(self._keys.items()):
            if not key.revoked_at and not self._is_good(key):
                await self._store.delete(SPACE, kid)
                del self._keys[kid]
        if len(self._keys) >= MAX_LISTED:
            raise CallerError(f"more than {MAX_LISTED} result keys", reason="too-many-result-keys")

    async def _learn(self, kid: str) -> None:
        """Look for a key that another scheduler just listed, some times a second at most."""
        now = self._clock.monotonic()
        if now - self._learning_since >= 1.0:
            self._learning_since, self._learned = now, 0
        if self._learned >= MAX_LEARNED_A_SECOND:
            return
        self._learned += 1
        try:
            entry = await self._store.entry_or_none(SPACE, kid)
        except ControlStoreError:
            return
        if entry is not None:
            self._keys |= self._readable([entry])

    async def _reread(self, *, is_wanting: bool = False) -> None:
        """Read the table if that is long ago; one at a time, however many ask."""
        async with self._reading:
            seconds = min(UNKNOWN_SECONDS, REREAD_SECONDS) if is_wanting else REREAD_SECONDS
            if self._clock.monotonic() - self._read_at < seconds:
                return
            try:
                self._keys = self._readable(await self._store.entries(SPACE))
            except ControlStoreError as error:
                _log.warning("result keys are those of before: %s", error)
            self._read_at = self._clock.monotonic()

    def _readable(self, entries: Iterable[Entry]) -> dict[str, ListedKey]:
        found: dict[str, ListedKey] = {}
        for entry in entries:
            version, listed = self._read.get(entry.key, (0, None))
            if listed is None or version != entry.version:
                try:
                    listed = ListedKey.of(entry.value)
                except ControlStoreError as error:
                    _log.error("result key %s: %s", entry.key, error)
                    continue
                self._read[entry.key] = entry.version, listed
            found[entry.key] = listed
        return found


def result_key_table(config: SchedulerConfig, store: ControlStore, clock: Clock) -> ResultKeyTable:
    """Return the table as a scheduler of this config keeps it."""
    return ResultKeyTable(store, clock, config.result_key_days * 86_400)
