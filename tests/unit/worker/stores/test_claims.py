"""Claims in an action cache: what is kept, and what an attacker who writes there can do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcc.core import Digest, GuestReuse, Isolation, NotFoundError
from hpcc.reapi.claims import MAX_CLAIMS, ResultClaim, Voter
from hpcc.worker.stores.claims import ClaimBook, is_claims
from hpcc.worker.stores.entries import outputs_of

ACTION, OTHER = Digest.of(b"a"), Digest.of(b"b")
GOOD, FORGED = b"s" * 64, b"f" * 64


class Cache:
    """An `ActionCache` in memory that counts reads and writes."""

    def __init__(self) -> None:
        self.records: dict[Digest, bytes] = {}
        self.reads = self.writes = 0

    async def get(self, action: Digest) -> bytes:
        self.reads += 1
        if action not in self.records:
            raise NotFoundError("absent")
        return self.records[action]

    async def put(self, action: Digest, record: bytes) -> None:
        self.writes += 1
        self.records[action] = record


async def check(claims: tuple[ResultClaim, ...]) -> tuple[ResultClaim, ...]:
    return tuple(c for c in claims if c.signature == GOOD)


def claim(voter: str = "a", result: str = "1", epoch: str = "k") -> ResultClaim:
    return ResultClaim(
        result=result * 64,
        voter=Voter(pseudonym=(voter * 32)[:32], epoch=epoch),
        guest_id=f"g-{voter}",
        execs_before=0,
        is_overlapped=False,
        isolation=Isolation.QEMU_KVM,
        reuse=GuestReuse.PRINCIPAL,
        snapshot="",
        row="e" * 32,
        made_at_ms=1,
        key_id="0" * 32,
        signature=GOOD,
    )


async def add(cache: Cache, made: ResultClaim, action: Digest = ACTION) -> set[tuple[str, str]]:
    found = await ClaimBook(cache).add(action, made, check)
    return {(c.voter.pseudonym[0], c.result[0]) for c in found}


async def test_claims_of_an_action_come_together() -> None:
    cache = Cache()
    assert await add(cache, claim("a")) == {("a", "1")}
    assert await add(cache, claim("b", "2")) == {("a", "1"), ("b", "2")}
    assert await add(cache, claim("c"), OTHER) == {("c", "1")}
    assert all(is_claims(r) and outputs_of(r) == () for r in cache.records.values())


async def test_a_claim_is_not_replaced_and_a_second_result_of_a_voter_stays() -> None:
    cache = Cache()
    await add(cache, claim("a"))
    first = dict(cache.records)
    assert await add(cache, replace(claim("a"), row="f" * 32)) == {("a", "1")}
    assert cache.records == first
    assert await add(cache, claim("a", "2")) == {("a", "1"), ("a", "2")}
    # Also when the first result comes again.
    assert await add(cache, claim("a")) == {("a", "1"), ("a", "2")}
    assert await add(cache, claim("b")) == {("a", "1"), ("a", "2"), ("b", "1")}


async def test_claims_of_an_earlier_epoch_make_room() -> None:
    cache = Cache()
    await add(cache, claim("a", epoch="old"))
    assert await add(cache, claim("b")) == {("b", "1")}
    assert await add(cache, claim("c")) == {("b", "1"), ("c", "1")}


async def test_flooding_of_claims_is_bounded() -> None:
    cache = Cache()
    for number in range(2 * MAX_CLAIMS):
        await add(cache, claim(f"{number:02x}"))
    cache.reads = 0
    found = await ClaimBook(cache).add(ACTION, claim("ff"), check)
    assert len(found) <= MAX_CLAIMS
    assert cache.reads <= MAX_CLAIMS + 3


async def test_a_store_writer_makes_no_claim_and_takes_no_voters_place() -> None:
    cache = Cache()
    await add(cache, claim("a"))
    await add(cache, claim("b"))
    names = [n for n, r in cache.records.items() if b"claims" in r]
    forged = {name: cache.records[name].replace(GOOD, FORGED) for name in names}
    cache.records.update(forged)
    assert await add(cache, claim("c")) == {("c", "1")}
    # An honest execution replaces what has no valid signature.
    assert await add(cache, claim("a")) == {("a", "1"), ("c", "1")}


async def test_a_claim_under_another_voters_name_is_absent() -> None:
    cache = Cache()
    await add(cache, claim("a"))
    before = set(cache.records)
    await add(cache, claim("b"))
    (name_of_b,) = (n for n in cache.records if n not in before)
    name_of_a = next(n for n in before if b"g-a" in cache.records[n])
    cache.records[name_of_b] = cache.records[name_of_a]
    assert await add(cache, claim("c")) == {("a", "1"), ("c", "1")}


@pytest.mark.parametrize(
    "record",
    [b"", b"hpcc-claim-index-1\n7 k:" + b"a" * 32, b"hpcc-claim-index-1\n0 x\n", b"x" * 99999],
)
async def test_a_damaged_index_costs_votes_and_nothing_else(record: bytes) -> None:
    cache = Cache()
    await add(cache, claim("a"))
    index = next(n for n, r in cache.records.items() if b"index" in r)
    cache.records[index] = record
    assert await add(cache, claim("b")) == {("b", "1")}


async def test_one_worker_has_the_lease_on_an_action_until_it_ends() -> None:
    book = ClaimBook(Cache())
    one, two = "1" * 32, "2" * 32
    assert await book.lease(ACTION, one, 1000.0)
    assert await book.lease(ACTION, one, 1001.0)
    assert not await book.lease(ACTION, two, 1002.0)
    assert await book.lease(OTHER, two, 1002.0)
    assert await book.lease(ACTION, two, 1601.5)


@pytest.mark.parametrize("record", [b"junk", b"9" * 13, b"9" * 99])
async def test_a_store_writer_prevents_no_verification_for_longer_than_a_lease(
    record: bytes,
) -> None:
    cache = Cache()
    book = ClaimBook(cache)
    await book.lease(ACTION, "1" * 32, 1000.0)
    (name,) = cache.records
    assert is_claims(cache.records[name])
    assert outputs_of(cache.records[name]) == ()
    forged = cache.records[name].rpartition(b" ")[0] + b" " + record
    for lie in (record, forged):
        cache.records[name] = lie
        assert await book.lease(ACTION, "2" * 32, 1001.0)
