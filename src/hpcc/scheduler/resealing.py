"""What a scheduler's control store holds sealed, and how it gets another sealing key.

Secrets are changed one after the other, and one that the new key opens already is not changed.
After an interruption the same call does the rest. No scheduler may run meanwhile with the old key.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Final

from hpcc.core import IntegrityError
from hpcc.identity.key_ring import KeyRing, KeyRingError, Sealer, resealed
from hpcc.ports import Clock, ControlStore, Entry
from hpcc.scheduler.base.enrolled import CA_KEY, CA_PURPOSE, CA_SPACE, WORKER_SPACE
from hpcc.scheduler.base.signing import KEY, SPACE
from hpcc.scheduler.tenants import stored

# The secrets by name, and what ends when they are gone.
TOKEN_KEYS: Final = "signing keys of route tokens and sessions"  # noqa: S105 - a name, not one
WORKER_CA: Final = "the worker CA"
TENANTS: Final = "the tenants table"


@dataclass(frozen=True, slots=True)
class SealedState:
    """Whether a sealing key opens each secret that is there, and the enrolled workers."""

    opens: tuple[tuple[str, bool], ...]
    workers: tuple[str, ...]

    @property
    def lost(self) -> tuple[str, ...]:
        """The secrets that the key does not open."""
        return tuple(name for name, is_open in self.opens if not is_open)


async def sealed_state(store: ControlStore, sealer: Sealer) -> SealedState:
    """Try a sealing key; changes nothing.

    Raises:
        ControlStoreError: the store does not answer.
    """
    ring, ca = await _entries(store)
    found = []
    if ring is not None:
        found.append((TOKEN_KEYS, _opened_ring_or_none(ring, sealer, sealer) is not None))
    if ca is not None:
        found.append((WORKER_CA, _opened_ca_or_none(ca, sealer) is not None))
    if (head := await _tenants(store)) is not None:
        found.append((TENANTS, _opened_head_or_none(head, sealer) is not None))
    workers = sorted(entry.key for entry in await store.entries(WORKER_SPACE))
    return SealedState(tuple(found), tuple(workers))


async def reseal(store: ControlStore, old: Sealer, new: Sealer) -> None:
    """Seal every secret with another key.

    Raises:
        KeyRingError: the old key opens one of them no more than the new one does.
        ConflictError: a scheduler changed it meanwhile.
        ControlStoreError: the store does not answer.
    """
    ring, ca = await _entries(store)
    # All are opened before one is changed.
    kept = _opened_ring_or_none(ring, old, new) if ring is not None else None
    if ring is not None and kept is None:
        raise KeyRingError(f"the old key does not open {TOKEN_KEYS}")
    raw = None
    if ca is not None and _opened_ca_or_none(ca, new) is None:
        raw = _opened_ca_or_none(ca, old)
        if raw is None:
            raise KeyRingError(f"the old key does not open {WORKER_CA}")
    head, plain = await _tenants(store), None
    if head is not None and _opened_head_or_none(head, new) is None:
        plain = _opened_head_or_none(head, old)
        if plain is None:
            raise KeyRingError(f"the old key does not open {TENANTS}")
    if ring is not None and kept is not None and kept != KeyRing.parse(ring.value):
        await store.put(SPACE, KEY, kept.to_bytes(), expect=ring.version)
    if ca is not None and raw is not None:
        table = json.loads(ca.value)
        table["sealed"] = base64.b64encode(new.seal(CA_PURPOSE, raw)).decode()
        value = json.dumps(table, sort_keys=True).encode()
        await store.put(CA_SPACE, CA_KEY, value, expect=ca.version)
    if head is not None and plain is not None:
        sealed = new.seal(stored.PURPOSE, plain)
        await store.put(stored.SPACE, stored.KEY, sealed, expect=head.version)


async def replace_lost(store: ControlStore, new: Sealer, clock: Clock) -> None:
    """Replace the secrets that the key does not open. Which workers were revoked stays known.

    The farm keeps its name, so audit trails and workers' rows go on under it.

    Raises:
        ConflictError: a scheduler changed it meanwhile.
        ControlStoreError: the store does not answer.
    """
    ring, ca = await _entries(store)
    if ring is not None and _opened_ring_or_none(ring, new, new) is None:
        try:
            issuer = KeyRing.parse(ring.value).issuer
        except KeyRingError:
            await store.delete(SPACE, KEY)  # the next scheduler makes another farm's ring
        else:
            fresh = KeyRing(issuer, (new.new_key(issuer, clock.now()),))
            await store.put(SPACE, KEY, fresh.to_bytes(), expect=ring.version)
    if ca is not None and _opened_ca_or_none(ca, new) is None:
        # The next scheduler makes one, as the first one of a farm does.
        await store.delete(CA_SPACE, CA_KEY)
    head = await _tenants(store)
    if head is not None and _opened_head_or_none(head, new) is None:
        # Nobody can log in until it is applied again: what is there could be anybody's.
        await store.delete(stored.SPACE, stored.KEY)


async def _entries(store: ControlStore) -> tuple[Entry | None, Entry | None]:
    return await store.entry_or_none(SPACE, KEY), await store.entry_or_none(CA_SPACE, CA_KEY)


async def _tenants(store: ControlStore) -> Entry | None:
    return await store.entry_or_none(stored.SPACE, stored.KEY)


def _opened_head_or_none(entry: Entry, sealer: Sealer) -> bytes | None:
    try:
        return sealer.unseal(stored.PURPOSE, entry.value)
    except KeyRingError:
        return None


def _opened_ring_or_none(entry: Entry, old: Sealer, new: Sealer) -> KeyRing | None:
    """Return the ring, sealed with `new`."""
    try:
        return resealed(KeyRing.parse(entry.value), old, new)
    except KeyRingError:
        return None


def _opened_ca_or_none(entry: Entry, sealer: Sealer) -> bytes | None:
    """Return the CA's private key in DER."""
    try:
        sealed = base64.b64decode(json.loads(entry.value)["sealed"])
        return sealer.unseal(CA_PURPOSE, sealed)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error, IntegrityError):
        return None
