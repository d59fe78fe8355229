"""Keeps which shared actions have one name, for `hpcc explain`, in an action cache.

An object is a list of action digests. Others may be able to write to the store: what is read here
counts only if the tenant has a shared result of the action (`hpcc.worker.explain.near`).
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from hpcc.core import CallerError, Digest, NotFoundError
from hpcc.core.memo import LruMemo
from hpcc.ports import ActionCache

_TAG: Final = b"hpcc-near-actions-1\n"
# The states of a file that people work on.
MAX_NEAR: Final = 4
_MAX_RECORD_BYTES: Final = 1024
_LINE: Final = re.compile(r"[0-9a-f]{64}/[0-9]{1,9}")
# Names whose lists one worker remembers; each takes at most 1 KiB.
_MAX_NAMES: Final = 8192


def is_near(record: bytes) -> bool:
    """Return whether a record of an action cache is a list of near actions, and no result."""
    return record.startswith(_TAG)


class NearActions:
    """Notes the shared actions of one worker's tenants. A name is a SHA-256, as 32 bytes."""

    def __init__(self) -> None:
        self._own: LruMemo[tuple[str, bytes], tuple[Digest, ...]] = LruMemo(_MAX_NAMES)

    async def note(self, tenant: str, cache: ActionCache, name: bytes, action: Digest) -> None:
        """Note an action whose result was shared; `cache` is the tenant's.

        Those of this worker only: to read the object first would be one more request to a shared
        store for each result. What another worker noted is replaced, which costs an explanation.

        Raises:
            HpccError: the store failed.
        """
        known = [d for d in self._own.use((tenant, name)) or () if d != action]
        actions = (action, *known)[:MAX_NEAR]
        self._own[tenant, name] = actions
        await cache.put(_place(name), _TAG + b"".join(f"{d}\n".encode() for d in actions))


async def noted(cache: ActionCache, name: bytes) -> tuple[Digest, ...]:
    """Return the actions that were noted under a name, at most `MAX_NEAR`.

    Raises:
        HpccError: the store failed.
    """
    try:
        record = await cache.get(_place(name))
    except NotFoundError:
        return ()
    if not is_near(record) or len(record) > _MAX_RECORD_BYTES:
        return ()
    lines = record[len(_TAG) :].decode("ascii", "replace").splitlines()[:MAX_NEAR]
    try:
        return tuple(Digest.parse(line) for line in lines if _LINE.fullmatch(line))
    except CallerError:
        return ()


def _place(name: bytes) -> Digest:
    """Return the name of an object: a digest that no action can have, because its size is 0."""
    return Digest(hashlib.sha256(b"hpcc-near-actions\0" + name).hexdigest(), 0)
