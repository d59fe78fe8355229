"""Lists the keys that may sign results: from a worker's registration until revoked or long unused.

Keys outlive their workers, because the workers' results stay valid in the stores.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
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
# A worker's registration is written again at most this often.
TOUCH_SECONDS: Final = 86_400.0
# What another scheduler or the command line wrote is in force here after this time at the latest.
REREAD_SECONDS: Final = 15.0
MAX_LEARNED_A_SECOND: Final = 32
MAX_LISTED: Final = 10_000
# No key is replaced when fewer than so many more can be listed.
_ROOM: Final = 500
# Another scheduler may just have listed an unknown key.
UNKNOWN_SECONDS: Final = 1.0
_TRIES: Final = 3
# Workers handled without a pause; routes wait meanwhile.
_AT_ONCE: Final = 200
_KEY: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedKey:
    """A key (64 hex digits), the worker that last registered it, and times in epoch seconds.

    `revoked_at` is 0 for a valid key. A revoked key stays listed, so that it can never return; a
    retired one (`is_retired`) is a revoked one whose worker is still trusted. `replace_at` is when
    an operator ordered its worker to replace it, or 0. An announced key does not sign yet.
    """

    key: str
    worker: str
    first_at: float
    last_at: float
    revoked_at: float = 0.0
    replace_at: float = 0.0
    is_announced: bool = False
    is_retired: bool = False

    @classmethod
    def of(cls, value: bytes) -> ListedKey:
        """Decode an entry of the control store.

        Raises:
            ControlStoreError: it has another form.
        """
        try:
            table = json.loads(value)
            texts = [table["key"], table["worker"]]
            times = [table["first_at"], table["last_at"], table["revoked_at"]]
            # Absent in what versions without rotation wrote.
            times.append(table.get("replace_at", 0.0))
            flags = [table.get(name, False) for name in ("is_announced", "is_retired")]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ControlStoreError("an entry of a result key has another form") from error
        if (
            not all(isinstance(t, str) for t in texts)
            or not all(isinstance(t, float) for t in times)
            or not all(isinstance(f, bool) for f in flags)
            or not _KEY.fullmatch(texts[0])
        ):
            raise ControlStoreError("an entry of a result key has another form")
        return cls(
            key=texts[0],
            worker=texts[1],
            first_at=times[0],
            last_at=times[1],
            revoked_at=times[2],
            replace_at=times[3],
            is_announced=flags[0],
            is_retired=flags[1],
        )

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()


class ResultKeyTable:
    """The farm's result keys: in the control store, and in memory while that is unreachable."""

    def __init__(
        self,
        store: ControlStore,
        clock: Clock,
        lifetime_seconds: float,
        rotate_seconds: float = 0.0,
    ) -> None:
        """Workers replace a key that is `rotate_seconds` old; 0 leaves that to the operator."""
        self._store, self._clock, self._lifetime = store, clock, lifetime_seconds
        self._rotate_seconds = rotate_seconds
        self._keys: dict[str, ListedKey] = {}
        self._read_at = float("-inf")
        self._reading, self._is_away = asyncio.Lock(), False
        self._learning_since, self._learned = float("-inf"), 0
        # The decoded entries by version, so that only changed ones are decoded again.
        self._read: dict[str, tuple[int, ListedKey]] = {}
        # Ids of keys; computing one takes time.
        self._ids: BoundedMemo[bytes, str] = BoundedMemo(MAX_LISTED)

    async def note(self, registration: Registration) -> str:
        """List the key of a registering worker; return the key's id.

        Raises:
            CallerError: the worker did not prove possession of the key, or there are too many keys.
            PolicyError: the key was revoked.
            ControlStoreError: the key is new and cannot be stored now.
        """
        worker = registration.worker_id
        key = registration.result_key
        kid = check_possession(key, registration.result_proof, worker, registration.certificate)
        await self._reread()
        for _ in range(_TRIES):
            try:
                await self._keep(kid, key.hex(), worker, is_announced=registration.is_key_announced)
            except ConflictError:
                continue
            except ControlStoreError as error:
                if kid not in self._keys or self.is_revoked(kid):
                    raise
                _log.warning("result key of worker %s is not renewed: %s", worker, error)
            return kid
        raise ControlStoreError("the result key changes all the time")

    async def listed(self, key_ids: tuple[str, ...]) -> Mapping[str, bytes]:
        """Return the public keys (32 bytes) of the ids that are valid now.

        Raises:
            ControlStoreError: a key is unknown here and the store does not answer. So the caller
                asks another scheduler, and drops no result for a key that is good.
        """
        await self._reread()
        if any(kid not in self._keys for kid in key_ids):
            await self._reread(is_wanting=True)
        for kid in key_ids:
            if kid not in self._keys:
                await self._learn(kid)
        found = {kid: self._keys[kid] for kid in key_ids if kid in self._keys}
        return {kid: bytes.fromhex(k.key) for kid, k in found.items() if self._is_good(k)}

    async def all(self) -> Mapping[str, tuple[ListedKey, bool]]:
        """Return every key by its id, and whether it is valid now."""
        self._read_at = float("-inf")
        await self._reread()
        return {kid: (key, self._is_good(key)) for kid, key in sorted(self._keys.items())}

    async def revoke(self, kid: str, *, is_retiring: bool = False) -> ListedKey:
        """Revoke a key permanently; its results become misses.

        With `is_retiring` only if its worker signs with another key, and stays trusted.

        Raises:
            NotFoundError: no worker ever registered it.
            CallerError: it is to be retired, and its worker has no other key that signs.
        """

        def revoked(key: ListedKey) -> ListedKey:
            if key.revoked_at:
                return key
            if is_retiring and not self._has_successor(key):
                raise CallerError(
                    f"worker {key.worker} has no other key that signs: first"
                    f" `hpcc scheduler rotate-result-key {kid}`",
                    reason="result-key-in-use",
                )
            return replace(key, revoked_at=self._clock.now(), is_retired=is_retiring)

        await self.all()
        return await self._change(kid, revoked)

    async def order(self, kid: str) -> ListedKey:
        """Order the worker of a key to replace it; a later order for the key changes nothing.

        Raises:
            NotFoundError: no worker ever registered it.
            CallerError: the key is not valid any more, or its worker has a newer one.
        """

        def ordered(key: ListedKey) -> ListedKey:
            if not self._is_good(key):
                raise CallerError(f"key {kid} is not valid any more", reason="result-key")
            if key not in self.newest():
                raise CallerError(f"worker {key.worker} has a newer key", reason="result-key")
            return replace(key, replace_at=key.replace_at or self._clock.now())

        await self.all()
        return await self._change(kid, ordered)

    async def _change(self, kid: str, change: Callable[[ListedKey], ListedKey]) -> ListedKey:
        for _ in range(_TRIES):
            entry = await self._store.entry_or_none(SPACE, kid)
            if entry is None:
                raise NotFoundError(f"no worker ever registered the result key {kid}")
            before = ListedKey.of(entry.value)
            key = change(before)
            if key != before:
                try:
                    await self._store.put(SPACE, kid, key.encode(), expect=entry.version)
                except ConflictError:
                    await self.all()
                    continue
            self._keys[kid] = key
            return key
        raise ControlStoreError("the result key changes all the time")

    def newest(self) -> frozenset[ListedKey]:
        """Return the newest valid key of each worker."""
        found: dict[str, ListedKey] = {}
        for key in sorted(self._keys.values(), key=lambda key: key.first_at):
            if self._is_good(key):
                found[key.worker] = key
        return frozenset(found.values())

    def _has_successor(self, key: ListedKey) -> bool:
        return any(
            other.worker == key.worker and other.first_at > key.first_at and not other.is_announced
            for other in self.newest()
        )

    def due_or_empty(self, public: bytes) -> str:
        """Return the id of a worker's key if the worker shall replace it, else an empty string."""
        kid = self._id_or_none(public)
        key = self._keys.get(kid) if kid is not None else None
        if kid is None or key is None or not self._is_good(key):
            return ""
        age = self._clock.now() - key.first_at
        is_due = key.replace_at > 0 or 0 < self._rotate_seconds <= age
        # A key without room would be refused.
        return kid if is_due and len(self._keys) < MAX_LISTED - _ROOM else ""

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
                    await self._keep(
                        kid,
                        worker.result_key.hex(),
                        worker.worker_id,
                        is_announced=worker.is_key_announced,
                    )
                except HpccError as error:
                    _log.warning("result key of worker %s: %s", worker.worker_id, error)
        return tuple(revoked)

    def _id_or_none(self, key: bytes) -> str | None:
        """Return a key's id; None for an invalid key that a scheduler of another version shared."""
        kid = self._ids.get(key)
        if kid is None:
            try:
                kid = result_key_id(key)
            except ValueError:
                return None
            self._ids[key] = kid
        return kid

    def is_revoked(self, kid: str) -> bool:
        """Return whether a key was revoked, as far as this scheduler knows."""
        return kid in self._keys and self._keys[kid].revoked_at > 0

    def _is_good(self, key: ListedKey) -> bool:
        return not key.revoked_at and self._clock.now() - key.last_at < self._lifetime

    async def _keep(self, kid: str, key: str, worker: str, *, is_announced: bool) -> None:
        now = self._clock.now()
        entry = await self._store.entry_or_none(SPACE, kid)
        if entry is None:
            await self._make_room()
            listed = ListedKey(
                key=key, worker=worker, first_at=now, last_at=now, is_announced=is_announced
            )
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
            is_known = (listed.worker, listed.is_announced) == (worker, is_announced)
            if not is_known or now - listed.last_at >= TOUCH_SECONDS:
                listed = replace(listed, worker=worker, last_at=now, is_announced=is_announced)
                await self._store.put(SPACE, kid, listed.encode(), expect=entry.version)
        self._keys[kid] = listed

    async def _make_room(self) -> None:
        """Delete keys that are too old to be valid.

        Raises:
            CallerError: too many others remain.
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
        """Look up a key that another scheduler may just have listed; limited per second.

        Raises:
            ControlStoreError: the store does not answer.
        """
        now = self._clock.monotonic()
        if now - self._learning_since >= 1.0:
            self._learning_since, self._learned = now, 0
        if self._learned >= MAX_LEARNED_A_SECOND:
            if self._is_away:
                raise ControlStoreError("the list of result keys cannot be read now")
            return
        self._learned += 1
        entry = await self._store.entry_or_none(SPACE, kid)
        if entry is not None:
            self._keys |= self._readable([entry])

    async def _reread(self, *, is_wanting: bool = False) -> None:
        """Read the table if the last reading is old; concurrent callers share one reading."""
        async with self._reading:
            seconds = min(UNKNOWN_SECONDS, REREAD_SECONDS) if is_wanting else REREAD_SECONDS
            if self._clock.monotonic() - self._read_at < seconds:
                return
            try:
                self._keys = self._readable(await self._store.entries(SPACE))
            except ControlStoreError as error:
                _log.warning("the list of result keys is not updated: %s", error)
                self._is_away = True
            else:
                self._is_away = False
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
    """Return the table of a scheduler with this configuration."""
    days = (config.result_key_days, config.result_key_rotate_days)
    lifetime, rotate = (number * 86_400 for number in days)
    return ResultKeyTable(store, clock, lifetime, rotate)
