"""What the dispatcher remembers of trees and workers, and when it forgets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest

from hpcc.core import CallerError, Digest, InputFile, RemoteInput, TenantId
from hpcc.dispatch import packs as _dispatch_packs
from hpcc.dispatch.packs import InputPack, InputPacks, SentBlobs
from hpcc.dispatch.remote_frames import UNKNOWN_INPUTS, decode_inputs, encode_inputs
from hpcc.reapi.delta import Delta
from hpcc.reapi.tree import build_tree

A, B, C = Digest.of(b"a"), Digest.of(b"bb"), Digest.of(b"c" * 100_000)


def encoded(*paths: str) -> bytes:
    return encode_inputs((RemoteInput(p, f"/home/{p}", False, A.hash), A.size_bytes) for p in paths)


@dataclass
class Worker:
    """Counts the calls that it gets."""

    missing: frozenset[Digest] = frozenset()
    asked: list[frozenset[Digest]] = field(default_factory=list)

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        self.asked.append(frozenset(digests))
        return self.missing


@dataclass
class Action:
    own: frozenset[Digest]
    shared: InputPack | None
    digests: frozenset[Digest]
    texts: dict[Digest, bytes] = field(default_factory=dict)
    places: dict[Digest, str] = field(default_factory=dict)

    def content(self, digest: Digest) -> bytes | None:
        return self.texts.get(digest)


def edited(pack: InputPack, text: bytes) -> Action:
    own = Digest.of(text)
    return Action(frozenset({own}), pack, frozenset({A, own}), {own: text}, {own: "file:m.c"})


def routed(worker_id: str = "w1", tenant: str = "acme", generation: int = 1) -> Any:
    route = SimpleNamespace(worker_id=worker_id, worker_certificate=b"der", generation=generation)
    return SimpleNamespace(route=route, tenant=TenantId(tenant))


def test_inputs_cross_unchanged() -> None:
    assert decode_inputs(encoded("inc/a.h", "é.h")) == [
        ("inc/a.h", "/home/inc/a.h", A),
        ("é.h", "/home/é.h", A),
    ]


@pytest.mark.parametrize("data", [b"", b"{}x", b"[[1]]", b'[["a","b","c",1]]', b"\xff"])
def test_bytes_that_are_no_inputs_are_refused(data: bytes) -> None:
    with pytest.raises(CallerError):
        InputPacks().of(data)


def test_a_pack_is_read_once_and_is_the_tree_of_its_files() -> None:
    packs = InputPacks()
    pack = packs.of(encoded("inc/a.h", "b.h"))
    assert packs.of(encoded("inc/a.h", "b.h")) is pack
    whole = build_tree([InputFile(p, A) for p in ("inc/a.h", "b.h")] + [InputFile("m.c", B)])
    assert pack.base.with_files([InputFile("m.c", B)]).root == whole.root
    assert pack.files == {A: "/home/b.h"} or pack.files == {A: "/home/inc/a.h"}


async def test_a_worker_is_asked_for_shared_inputs_once() -> None:
    sent, worker, pack = SentBlobs(), Worker(frozenset({B})), InputPacks().of(encoded("a.h"))
    action = Action(frozenset({B}), pack, frozenset({A, B}))
    assert await sent.unknown(worker, routed(), action) == {B}
    sent.note(routed(), action)
    other = Action(frozenset({B, Digest.of(b"new")}), pack, frozenset({A, B}))
    assert await sent.unknown(worker, routed(), other) == {Digest.of(b"new")}
    assert worker.asked == [frozenset({A, B})]


async def test_what_is_large_is_asked_for_before_it_is_sent() -> None:
    sent, worker, pack = SentBlobs(), Worker(), InputPacks().of(encoded("a.h"))
    sent.note(routed(), Action(frozenset(), pack, frozenset()))
    assert await sent.unknown(worker, routed(), Action(frozenset({C}), pack, frozenset())) == set()
    assert worker.asked == [frozenset({C})]


@pytest.mark.parametrize("other", [routed("w2"), routed("w1", "other")])
async def test_what_one_worker_or_tenant_has_says_nothing_of_another(other: Any) -> None:
    sent, worker, pack = SentBlobs(), Worker(), InputPacks().of(encoded("a.h"))
    action = Action(frozenset({B}), pack, frozenset({A, B}))
    sent.note(routed(), action)
    await sent.unknown(worker, other, action)
    assert worker.asked == [frozenset({A, B})]


async def test_after_an_eviction_everything_is_asked_anew() -> None:
    sent, worker, pack = SentBlobs(), Worker(), InputPacks().of(encoded("a.h"))
    action = Action(frozenset({B}), pack, frozenset({A, B}))
    sent.note(routed(), action)
    sent.forget(routed())
    await sent.unknown(worker, routed(), action)
    assert worker.asked == [frozenset({A, B})]


def test_inputs_are_known_by_name_once_they_were_told() -> None:
    packs, data = InputPacks(), encoded("a.h")
    name = sha256(data).digest()
    assert packs.known(name) is None
    with pytest.raises(CallerError) as refused:
        packs.of(b"", name)
    assert refused.value.reason == UNKNOWN_INPUTS
    assert packs.of(data, name) is packs.of(b"", name) is packs.known(name)


def test_an_edit_goes_with_the_call_as_what_changed() -> None:
    sent, pack = SentBlobs(), InputPacks().of(encoded("a.h"))
    first, second = (
        edited(pack, b"int a = 1;" * 99),
        edited(pack, b"int a = 1;" * 98 + b"int a = 2;"),
    )
    assert sent.deltas(routed(), first) is None  # of the headers nothing is known yet
    sent.note(routed(), first)
    assert sent.deltas(routed(), first) == ()
    (delta,) = sent.deltas(routed(), second) or ()
    assert (delta.base, delta.data) == (*first.own, b"2")
    (whole,) = sent.deltas(routed(), edited(pack, b"")) or ()
    assert whole.data == b""
    assert sent.deltas(routed("w2"), second) is None
    large = edited(pack, b"x" * 100_000)
    assert sent.deltas(routed(), large) is None
    unread = Action(frozenset({B}), pack, frozenset({A, B}))
    assert sent.deltas(routed(), unread) is None


def test_a_worker_that_always_lacks_what_it_was_sent_is_sent_nothing_that_way() -> None:
    sent, pack = SentBlobs(), InputPacks().of(encoded("a.h"))

    def offered(text: bytes) -> tuple[Delta, ...] | None:
        sent.note(routed(), Action(frozenset(), pack, frozenset()))
        return sent.deltas(routed(), edited(pack, text))

    def lacks(text: bytes, missing: Iterable[Digest]) -> None:
        deltas = offered(text)
        assert deltas
        sent.lacked(routed(), deltas, missing)
        assert sent.deltas(routed(), edited(pack, text)) is None  # everything is asked first

    for _ in range(5):
        lacks(b"int a;", [A])  # a header: evicted
    for number in range(2):
        lacks(b"int b%d;" % number, [Digest.of(b"int b%d;" % number)])
    sent.taken(routed(), edited(pack, b"int c;"))
    for number in range(3):
        lacks(b"int d%d;" % number, [Digest.of(b"int d%d;" % number)])
    assert offered(b"int e;") is None
    again = routed(generation=2)
    sent.note(again, Action(frozenset(), pack, frozenset()))
    assert sent.deltas(again, edited(pack, b"int e;"))


def test_a_worker_is_brief_for_one_life() -> None:
    sent = SentBlobs()
    assert not sent.is_brief(routed())
    sent.was_brief(routed())
    assert sent.is_brief(routed())
    assert not sent.is_brief(routed(generation=2))
    assert not sent.is_brief(routed("w2"))


def test_what_was_sent_last_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dispatch_packs, "_MAX_LATEST_BYTES", 250)
    sent, pack = SentBlobs(), InputPacks().of(encoded("a.h"))
    for i in range(9):
        action = edited(pack, bytes([i]) * 100)
        action.places = dict.fromkeys(action.own, f"file:{i}")
        sent.note(routed(), action)
        sent.note(routed(), action)
    latest = sent._of(routed()).latest
    assert [i for i in range(9) if latest.get(f"file:{i}") is not None] == [7, 8]
