"""What the dispatcher remembers of trees and of workers, and how it forgets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from hpcc.core import CallerError, Digest, InputFile, RemoteInput, TenantId
from hpcc.daemon._dispatch_packs import InputPack, InputPacks, SentBlobs
from hpcc.daemon._remote_frames import decode_inputs, encode_inputs
from hpcc.reapi import build_tree

A, B, C = Digest.of(b"a"), Digest.of(b"bb"), Digest.of(b"c" * 100_000)


def encoded(*paths: str) -> bytes:
    return encode_inputs((RemoteInput(p, f"/home/{p}", False, A.hash), A.size_bytes) for p in paths)


@dataclass
class Worker:
    """Counts what it was asked."""

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


def routed(worker_id: str = "w1", tenant: str = "acme") -> Any:
    route = SimpleNamespace(worker_id=worker_id, worker_certificate=b"der")
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
