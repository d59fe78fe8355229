"""Holds the farm's signing keys in this scheduler: reads, uses and rotates them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.control.mirror import Mirror
from hpcc.core import CallerError
from hpcc.identity.key_ring import KeyRing, KeyRingError, Sealer, derive_secret
from hpcc.identity.token import TokenSigner
from hpcc.ports import Clock, ConflictError, ControlStore, ControlStoreError

_log: Final = logging.getLogger(__name__)
SPACE: Final = "token-keys"
KEY: Final = "ring"
# A new key is announced to schedulers and workers so long before it signs.
ANNOUNCE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 30.0
# Clocks of schedulers and workers may differ by this much.
_SKEW_SECONDS: Final = 60.0


class SigningKeys:
    """One ring for all schedulers, replaced by compare-and-swap, so that only one rotates it."""

    def __init__(
        self,
        store: ControlStore,
        sealer: Sealer,
        clock: Clock,
        *,
        key_seconds: float,
        lifetime_seconds: float,
    ) -> None:
        """`lifetime_seconds` is the longest time that anything signed is valid."""
        self._store, self._sealer, self._clock = store, sealer, clock
        self._key_seconds = key_seconds
        self._lifetime = lifetime_seconds + _SKEW_SECONDS
        self._mirror = Mirror(store, SPACE, clock, self._take)
        self._ring: KeyRing | None = None
        self._private: dict[str, Ed25519PrivateKey] = {}
        self._signers: dict[str, TokenSigner] = {}
        self._secrets: dict[str, bytes] = {}
        self._voters: dict[str, bytes] = {}

    async def load(self) -> None:
        """Read the ring; the first scheduler of a farm makes it.

        Raises:
            ControlStoreError: the store does not answer.
            KeyRingError: the ring is damaged, or sealed with another key.
        """
        await self._mirror.read()
        if KEY not in self._mirror.entries:
            issuer, now = f"scheduler-{secrets.token_hex(6)}", self._clock.now()
            ring = KeyRing(issuer, (self._sealer.new_key(issuer, now),))
            try:
                await self._store.put(SPACE, KEY, ring.to_bytes(), expect=0)
            except ConflictError:
                _log.info("another scheduler made the key ring first")
            await self._mirror.read()
        self._use(self._mirror.entries[KEY].value)

    @property
    def ring(self) -> KeyRing:
        assert self._ring is not None, "load comes first"
        return self._ring

    @property
    def sealer(self) -> Sealer:
        """Seals the farm's keys."""
        return self._sealer

    @property
    def issuer(self) -> str:
        return self.ring.issuer

    @property
    def token_keys(self) -> tuple[tuple[str, bytes], ...]:
        """The keys that workers may trust: key id and 32 bytes each."""
        return tuple((k.kid, k.public) for k in self.ring.listed(self._clock.now()))

    @property
    def kid(self) -> str:
        return self.ring.signing(self._clock.now()).kid

    def signer(self) -> TokenSigner:
        return self._signers[self.kid]

    def is_listed(self, kid: str) -> bool:
        """Return whether the ring has a key that has not ended."""
        now = self._clock.now()
        return any(k.kid == kid and (k.ends_at is None or k.ends_at > now) for k in self.ring.keys)

    def secrets(self) -> Mapping[str, bytes]:
        """Return the session secrets by key id, of keys that have not ended."""
        return {k.kid: self._secrets[k.kid] for k in self.ring.listed(self._clock.now())}

    def voter_secret(self) -> tuple[str, bytes]:
        """Return the epoch of voters' pseudonyms and its secret.

        The epoch is the id of the key from which the secret comes. So a pseudonym of another secret
        is of another epoch, and votes of two epochs never count together.
        """
        return self.kid, self._voters[self.kid]

    async def rotate(self, *, announce_seconds: float, is_revoking: bool = False) -> str:
        """Add a key that signs after `announce_seconds`; return its id.

        Raises:
            ConflictError: another scheduler replaced the ring meanwhile.
            CallerError: too many keys are in use.
            ControlStoreError: the store does not answer.
        """
        await self._mirror.read()
        entry, now = self._mirror.entries[KEY], self._clock.now()
        ring = KeyRing.parse(entry.value)
        key = self._sealer.new_key(ring.issuer, now + announce_seconds)
        ring = ring.rotated(
            key, now, lifetime_seconds=self._lifetime, is_revoking=is_revoking
        )  # fmt: skip
        await self._store.put(SPACE, KEY, ring.to_bytes(), expect=entry.version)
        await self._mirror.read()
        return key.kid

    async def run(self) -> None:
        """Keep the ring current and rotate it when it is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mirror.run(), name="key ring")
            group.create_task(self._rotate_when_due(), name="key rotation")

    async def _rotate_when_due(self) -> None:
        while True:
            try:
                if self.ring.is_due(self._clock.now(), self._key_seconds):
                    kid = await self.rotate(announce_seconds=ANNOUNCE_SECONDS)
                    _log.warning("signing key %s follows in %d s", kid, ANNOUNCE_SECONDS)
                else:
                    await self._mirror.read()  # a command may rotate an embedded ring
            except ConflictError:
                continue
            except (ControlStoreError, CallerError, KeyRingError) as error:
                _log.warning("the signing keys are not updated: %s", error)
            await self._clock.sleep(min(_LOOK_SECONDS, self._key_seconds / 4))

    def _take(self) -> None:
        entry = self._mirror.entries.get(KEY)
        if self._ring is None:
            return  # `load` reports what is wrong
        if entry is None:
            _log.error("the key ring is gone from the control store: the one in memory is used")
            return
        try:
            self._use(entry.value)
        except KeyRingError as error:
            _log.error("the key ring in memory is used: %s", error)

    def _use(self, raw: bytes) -> None:
        ring = KeyRing.parse(raw)
        if self._ring is not None and ring.issuer != self._ring.issuer:
            raise KeyRingError("the key ring is another farm's")
        private = {
            k.kid: self._private.get(k.kid) or self._sealer.open(ring.issuer, k) for k in ring.keys
        }
        self._signers = {kid: TokenSigner(key, kid=kid) for kid, key in private.items()}
        self._secrets = {kid: derive_secret(key, "session") for kid, key in private.items()}
        self._voters = {kid: derive_secret(key, "voter") for kid, key in private.items()}
        self._private, self._ring = private, ring
