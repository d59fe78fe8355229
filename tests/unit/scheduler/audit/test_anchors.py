"""Audit anchors are written to the store seldom, and only if they are signed."""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.heads import HeadSigner, check_head
from hpcc.ports import Anchor, SignedHead
from hpcc.scheduler.audit.anchors import ANCHOR_SECONDS, Anchors

SIGNER = HeadSigner("w1", Ed25519PrivateKey.generate())


class Clock:
    at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def head(count: int) -> SignedHead:
    return SIGNER.sign(count, f"{count:064x}", 1.0)


def check(signed: SignedHead) -> Anchor | None:
    try:
        check_head(signed)
    except AuditDamagedError:
        return None
    return Anchor(worker_id=signed.worker, count=signed.count, head=signed.head, at=signed.at)


def new(clock: Clock, cut: list[str] | None = None) -> Anchors:
    return Anchors(clock, check=check, on_cut=[].append if cut is None else cut.append)


async def counts(anchors: Anchors) -> list[int]:
    return [a.count for a in await anchors.take_due()]


async def test_a_worker_that_beats_often_is_written_seldom_and_with_its_latest_word() -> None:
    clock = Clock()
    anchors = new(clock)
    anchors.note(head(1))
    assert await counts(anchors) == [1]
    for count in range(2, 9):
        clock.at += 1
        anchors.note(head(count))
        assert await counts(anchors) == []
    clock.at += ANCHOR_SECONDS
    assert await counts(anchors) == [8]
    assert await counts(anchors) == []


async def test_the_last_word_of_a_worker_that_leaves_is_written_at_once() -> None:
    anchors = new(Clock())
    anchors.note(head(1))
    assert await counts(anchors) == [1]
    anchors.note(head(2))
    anchors.hurry("w1")
    assert await counts(anchors) == [2]


async def test_an_anchor_that_its_worker_did_not_sign_is_not_written() -> None:
    anchors = new(Clock())
    anchors.note(replace(head(2), count=3))
    assert await counts(anchors) == []


async def test_a_chain_that_goes_back_between_two_writings_is_named_and_not_taken() -> None:
    cut: list[str] = []
    anchors = new(Clock(), cut)
    anchors.note(head(5))
    anchors.note(head(4))
    assert cut == ["w1"]
    assert await counts(anchors) == [5]


async def test_what_could_not_be_written_is_written_the_next_time() -> None:
    anchors = new(Clock())
    anchors.note(head(1))
    taken = await anchors.take_due()
    anchors.give_back(taken)
    assert await anchors.take_due() == taken
