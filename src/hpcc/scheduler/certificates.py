"""The certificates that the farm's schedulers show, or will show: announced to all who log in.

They are in the control store, sealed: a party that can write there cannot make clients trust its
certificate.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.core import IntegrityError
from hpcc.identity.key_ring import Sealer
from hpcc.identity.tls import PinnedPeer, certificate_id
from hpcc.ports import Clock, ConflictError, ControlStore, ControlStoreError, Entry
from hpcc.rpc.scheduler.api import MAX_CERTIFICATES

_log: Final = logging.getLogger(__name__)
SPACE: Final = "scheduler-certificate"
_PURPOSE: Final = b"scheduler certificate"
# What a command changed is in force at each scheduler after this time.
REREAD_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Announced:
    """A certificate in DER, and since when it is announced, in seconds since the epoch."""

    der: bytes
    since: float


class CertificateBook:
    """The announced certificates, in the control store and in memory."""

    def __init__(self, store: ControlStore, sealer: Sealer, clock: Clock) -> None:
        self._store, self._sealer, self._clock = store, sealer, clock
        self._known: Mapping[str, Announced] = {}

    @property
    def announced(self) -> tuple[bytes, ...]:
        """The certificates in DER, the oldest first."""
        found = sorted(self._known.items(), key=lambda item: (item[1].since, item[0]))
        return tuple(announced.der for _, announced in found)[:MAX_CERTIFICATES]

    async def read(self) -> Mapping[str, Announced]:
        """Return the certificates by id; entries that this farm did not seal are left out.

        Raises:
            ControlStoreError: the store does not answer.
        """
        entries = await self._store.entries(SPACE)
        found = {entry.key: self._opened_or_none(entry) for entry in entries}
        self._known = {kid: known for kid, known in found.items() if known is not None}
        return self._known

    async def announce(self, der: bytes) -> str:
        """Announce a certificate; without effect if it is announced already. Return its id.

        Raises:
            ControlStoreError: the store does not answer.
        """
        kid = certificate_id(der)
        entry = await self._store.entry_or_none(SPACE, kid)
        if entry is None or self._opened_or_none(entry) is None:
            value = {"der": base64.b64encode(der).decode(), "since": self._clock.now()}
            sealed = self._sealer.seal(_PURPOSE, json.dumps(value).encode())
            try:
                await self._store.put(SPACE, kid, sealed, expect=entry.version if entry else 0)
            except ConflictError:
                _log.info("another scheduler announced the certificate %s first", kid)
        await self.read()
        return kid

    async def retire(self, kid: str) -> None:
        """Announce a certificate no more.

        Raises:
            ControlStoreError: the store does not answer.
        """
        await self._store.delete(SPACE, kid)
        await self.read()

    async def run(self, own: Callable[[], Sequence[bytes]]) -> None:
        """Keep the certificates current until cancelled; `own` returns this scheduler's.

        Schedulers that start together do not know each other's yet, so it looks soon at first: a
        client takes a certificate that only one of them announces for one that was retired.
        """
        seconds = 1.0
        while True:
            await self._clock.sleep(seconds)
            seconds = min(2 * seconds, REREAD_SECONDS)
            await self.keep(*await asyncio.to_thread(own))

    async def keep(self, *own: bytes) -> None:
        """Read the certificates again, and announce those of this scheduler.

        What is wrong is logged: those in memory stay.
        """
        try:
            await self.read()
            for der in own:
                if certificate_id(der) not in self._known:
                    await self.announce(der)
        except ControlStoreError as error:
            _log.warning("the announced certificates are not updated: %s", error)

    def _opened_or_none(self, entry: Entry) -> Announced | None:
        try:
            table = json.loads(self._sealer.unseal(_PURPOSE, entry.value))
            der, since = base64.b64decode(table["der"]), float(table["since"])
            PinnedPeer.from_der(der)
        except (IntegrityError, ValueError, TypeError, KeyError) as error:
            _log.error("an announced certificate is not this farm's: %s", error)
            return None
        return Announced(der, since) if certificate_id(der) == entry.key else None
