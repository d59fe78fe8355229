"""Keeps the claims about a tenant's executions, in an action cache.

Each claim is one object, under a name that follows from action and voter, and is not replaced. A
voter whose guests gave two results has a second object, and with both the voter has no vote. An
index names the voters of an action. Two workers that write it at the same time may lose a voter,
which costs one more execution.

Others may be able to write to the store. What is read here counts only after its signature was
checked; a claim without a valid one is absent, and may be replaced.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Final

from hpcc.core import Digest, NotFoundError
from hpcc.ports import ActionCache
from hpcc.reapi.claims import MAX_CLAIMS, ResultClaim, Voter, encode_claims, parse_claims
from hpcc.reapi.limits import ReapiError

_INDEX_TAG: Final = b"hpcc-claim-index-1\n"
_OBJECT_TAG: Final = b"hpcc-claim-1\n"
# One result of a voter, and another one that voids both.
_PLACES: Final = (0, 1)
_LEASE_TAG: Final = b"hpcc-claim-lease-1\n"
# A boot and a long compile. A worker that dies meanwhile delays a verification by as much.
_LEASE_SECONDS: Final = 600.0
_MAX_INDEX_BYTES: Final = 8 << 10

_LEASE: Final = re.compile(re.escape(_LEASE_TAG) + rb"([0-9a-f]{32}) ([0-9]{1,15})")

# Returns those claims that have a valid signature.
ClaimCheck = Callable[[tuple[ResultClaim, ...]], Awaitable[tuple[ResultClaim, ...]]]
_Name = tuple[Voter, int]


def is_claims(record: bytes) -> bool:
    """Return whether a record of an action cache is a claim or an index, and no result."""
    return record.startswith((_INDEX_TAG, _OBJECT_TAG, _LEASE_TAG))


class ClaimBook:
    """The claims about actions of one tenant and isolation."""

    def __init__(self, cache: ActionCache) -> None:
        self._cache = cache

    async def add(
        self, action: Digest, claim: ResultClaim, check: ClaimCheck
    ) -> tuple[ResultClaim, ...]:
        """Add a claim; return it with the other valid claims of its epoch.

        Raises:
            InfrastructureError: the store failed.
        """
        names = await self._index(action)
        known = [n for n in names if n[0].epoch == claim.voter.epoch]
        kept = [n for n in known if n[0] != claim.voter][: MAX_CLAIMS - len(_PLACES)]
        others = [await self._claim(action, n) for n in kept]
        mine = await self._put(action, claim, check)
        wanted = [*kept, *((claim.voter, place) for place in range(len(mine)))]
        if wanted != names:
            await self._cache.put(_name(b"index", action), _encode_index(wanted))
        return (*await check(tuple(c for c in others if c is not None)), *mine)

    async def read(self, action: Digest) -> tuple[ResultClaim, ...]:
        """Return the claims about an action. Their signatures are not checked.

        Raises:
            InfrastructureError: the store failed.
        """
        found = [await self._claim(action, name) for name in await self._index(action)]
        return tuple(claim for claim in found if claim is not None)

    async def lease(self, action: Digest, owner: str, now: float) -> bool:
        """Take the lease on executing an action again; return False if another worker has it.

        `owner` names the worker, `now` is in seconds since the epoch. Two workers that ask at the
        same moment may both get it, which costs one execution. Others may write to the store: a
        lease that ends later than one could is none.

        Raises:
            InfrastructureError: the store failed.
        """
        name = _name(b"lease", action)
        try:
            record = await self._cache.get(name)
            match = _LEASE.fullmatch(record)
        except NotFoundError:
            match = None
        if match is not None:
            ends = int(match[2]) / 1000
            if match[1].decode() != owner and now < ends <= now + 2 * _LEASE_SECONDS:
                return False
        ends_ms = int((now + _LEASE_SECONDS) * 1000)
        await self._cache.put(name, _LEASE_TAG + f"{owner} {ends_ms}".encode())
        return True

    async def _put(
        self, action: Digest, claim: ResultClaim, check: ClaimCheck
    ) -> tuple[ResultClaim, ...]:
        """Store a claim unless its voter has one with this result; return the voter's claims."""
        found = list[ResultClaim]()
        for place in _PLACES:
            old = await self._claim(action, (claim.voter, place))
            is_good = old is not None and bool(await check((old,)))
            if old is None or not is_good:
                record = _OBJECT_TAG + encode_claims([claim])
                await self._cache.put(_object(action, (claim.voter, place)), record)
                return (*found, claim)
            found.append(old)
            if old.result == claim.result and place == 0:
                # Whether there is a second result is not forgotten.
                second = await self._claim(action, (claim.voter, 1))
                return (old, *(await check((second,)) if second is not None else ()))
        return tuple(found)

    async def _claim(self, action: Digest, name: _Name) -> ResultClaim | None:
        try:
            record = await self._cache.get(_object(action, name))
            claims = parse_claims(record.removeprefix(_OBJECT_TAG))
        except (NotFoundError, ReapiError):
            return None
        is_it = len(claims) == 1 and claims[0].voter == name[0]
        return claims[0] if is_it and record.startswith(_OBJECT_TAG) else None

    async def _index(self, action: Digest) -> list[_Name]:
        try:
            return _parse_index(await self._cache.get(_name(b"index", action)))
        except (NotFoundError, ReapiError):
            return []


def _encode_index(names: list[_Name]) -> bytes:
    lines = [f"{place} {voter.text}\n".encode() for voter, place in names]
    return _INDEX_TAG + b"".join(lines)


def _parse_index(record: bytes) -> list[_Name]:
    """Parse an index.

    Raises:
        ReapiError: it is malformed, or names too many.
    """
    if len(record) > _MAX_INDEX_BYTES or not record.startswith(_INDEX_TAG):
        raise ReapiError("not an index of claims", reason="claim-form")
    lines = record[len(_INDEX_TAG) :].decode("ascii", "replace").splitlines()
    found = list[_Name]()
    for line in lines[:MAX_CLAIMS]:
        place, _, voter = line.partition(" ")
        if place not in {str(p) for p in _PLACES}:
            raise ReapiError("not an index of claims", reason="claim-form")
        found.append((Voter.parse(voter), int(place)))
    return found


def _object(action: Digest, name: _Name) -> Digest:
    voter, place = name
    return _name(b"claim", action, voter.text, str(place))


def _name(kind: bytes, action: Digest, *more: str) -> Digest:
    """Return the name of an object: a digest that no action can have, because its size is 0."""
    text = "\0".join((str(action), *more)).encode()
    return Digest(hashlib.sha256(b"hpcc-claims " + kind + b"\0" + text).hexdigest(), 0)
