"""Signing keys that several schedulers share: sealed, rotated, ended; sessions based on them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import CallerError, HpccError
from hpcc.identity.key_ring import MAX_KEYS, KeyRing, KeyRingError, RingKey, Sealer
from hpcc.identity.session_token import (
    SessionClaims,
    SessionTokenError,
    open_session_token,
    seal_session,
)
from hpcc.ports import ConflictError
from hpcc.scheduler.base.signing import ANNOUNCE_SECONDS, KEY, SPACE, SigningKeys
from hpcc_testkit.services.idp_tokens import FixedClock

SEALER = Sealer(b"s" * 32)
LIFE = 3600.0


def ring(*starts: float) -> KeyRing:
    first, *more = starts or (0.0,)
    made = KeyRing("farm", (SEALER.new_key("farm", first),))
    for start in more:
        made = made.rotated(SEALER.new_key("farm", start), start, lifetime_seconds=LIFE)
    return made


def test_a_ring_survives_its_store_and_opens_with_its_seal_only() -> None:
    made = ring(0.0, 100.0)
    read = KeyRing.parse(made.to_bytes())
    assert read == made
    for key in read.keys:
        assert SEALER.open("farm", key).public_key().public_bytes_raw() == key.public
        with pytest.raises(KeyRingError):
            Sealer(b"x" * 32).open("farm", key)


def test_a_key_that_is_put_in_anothers_place_does_not_open() -> None:
    one, other = ring(0.0, 100.0).keys
    for swapped in (
        replace(one, sealed=other.sealed),
        replace(one, kid=other.kid),
        replace(one, public=other.public),
        replace(one, sealed=one.sealed[:-1] + bytes([one.sealed[-1] ^ 1])),
        replace(one, sealed=b""),
    ):
        with pytest.raises(KeyRingError):
            SEALER.open("farm", swapped)
    with pytest.raises(KeyRingError):
        SEALER.open("another farm", one)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: [],
        lambda t: {**t, "keys": []},
        lambda t: {**t, "keys": t["keys"] * 40},
        lambda t: {**t, "issuer": "two words"},
        lambda t: {**t, "issuer": 7},
        lambda t: {**t, "keys": [{**t["keys"][0], "kid": "../x"}]},
        lambda t: {**t, "keys": [{**t["keys"][0], "public": "AAAA"}]},
        lambda t: {**t, "keys": [{**t["keys"][0], "public": "*"}]},
        lambda t: {**t, "keys": [{**t["keys"][0], "not_before": "soon"}]},
        lambda t: {**t, "keys": [{**t["keys"][0], "more": 1}]},
        lambda t: {"issuer": "farm"},
    ],
)
def test_a_damaged_ring_is_refused(damage: Callable[[Any], Any]) -> None:
    table = damage(json.loads(ring().to_bytes()))
    with pytest.raises(KeyRingError):
        KeyRing.parse(json.dumps(table).encode())


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[" * 100_000, b"null", b"7"])
def test_what_is_no_ring_is_refused(raw: bytes) -> None:
    with pytest.raises(KeyRingError):
        KeyRing.parse(raw)


def test_a_new_key_is_listed_before_it_signs_and_an_old_one_until_its_tokens_ended() -> None:
    made = ring(0.0)
    old = made.keys[0]
    made = made.rotated(SEALER.new_key("farm", 160.0), 100.0, lifetime_seconds=LIFE)
    new = made.keys[1]
    assert [k.kid for k in made.listed(100.0)] == [old.kid, new.kid]
    assert made.signing(159.0).kid == old.kid
    assert made.signing(160.0).kid == new.kid
    assert [k.kid for k in made.listed(159.0 + LIFE)] == [old.kid, new.kid]
    assert [k.kid for k in made.listed(160.0 + LIFE)] == [new.kid]
    assert not made.is_due(1159.0, 1000.0)
    assert made.is_due(1160.0, 1000.0)


def test_a_revoked_key_is_not_listed_at_all() -> None:
    made = ring(0.0)
    made = made.rotated(
        SEALER.new_key("farm", 100.0), 100.0, lifetime_seconds=LIFE, is_revoking=True
    )
    assert len(made.listed(100.0)) == 1
    assert made.signing(100.0).kid == made.keys[-1].kid


def test_a_flood_of_rotations_is_refused_while_old_keys_are_in_use() -> None:
    made = ring(0.0)
    for number in range(MAX_KEYS - 1):
        made = made.rotated(SEALER.new_key("farm", number), number, lifetime_seconds=LIFE)
    with pytest.raises(CallerError) as refused:
        made.rotated(SEALER.new_key("farm", 99.0), 99.0, lifetime_seconds=LIFE)
    assert refused.value.reason == "too-many-keys"
    assert KeyRing.parse(made.to_bytes()) == made


@pytest.mark.parametrize("secret", [b"", b"short", b" " * 64])
def test_a_short_sealing_key_is_refused(secret: bytes) -> None:
    with pytest.raises(CallerError):
        Sealer(secret)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedControlStore]:
    with EmbeddedControlStore(tmp_path / "control.sqlite", FixedClock()) as opened:
        yield opened


def keys(store: EmbeddedControlStore, clock: FixedClock, sealer: Sealer = SEALER) -> SigningKeys:
    return SigningKeys(store, sealer, clock, key_seconds=1000.0, lifetime_seconds=LIFE)


async def test_schedulers_that_start_at_once_end_with_one_ring(
    store: EmbeddedControlStore,
) -> None:
    clock = FixedClock()
    one, other = keys(store, clock), keys(store, clock)
    await one.load()
    await other.load()
    assert one.issuer == other.issuer
    assert one.token_keys == other.token_keys
    assert one.kid == other.kid


async def test_of_two_that_rotate_at_once_one_does(store: EmbeddedControlStore) -> None:
    clock = FixedClock()
    one = keys(store, clock)
    await one.load()
    entry = await store.entry_or_none(SPACE, KEY)
    assert entry is not None
    await one.rotate(announce_seconds=ANNOUNCE_SECONDS)
    with pytest.raises(ConflictError):
        await store.put(SPACE, KEY, entry.value, expect=entry.version)
    assert len(one.token_keys) == 2
    before = one.kid
    clock.time += ANNOUNCE_SECONDS
    assert one.kid != before


async def test_a_scheduler_with_another_sealing_key_does_not_start(
    store: EmbeddedControlStore,
) -> None:
    await keys(store, FixedClock()).load()
    with pytest.raises(KeyRingError):
        await keys(store, FixedClock(), Sealer(b"x" * 32)).load()


@pytest.mark.parametrize("attack", ["damage", "delete", "another-farm"])
async def test_who_writes_the_store_cannot_make_a_scheduler_take_other_keys(
    store: EmbeddedControlStore, attack: str
) -> None:
    one = keys(store, FixedClock())
    await one.load()
    kept = one.token_keys
    if attack == "damage":
        await store.put(SPACE, KEY, b"{}")
    elif attack == "delete":
        await store.delete(SPACE, KEY)
    else:
        await store.put(SPACE, KEY, KeyRing("x", (Sealer(b"y" * 32).new_key("x", 0.0),)).to_bytes())
    await one._mirror.read()
    assert one.token_keys == kept
    assert one.signer()


def claims(**changes: Any) -> SessionClaims:
    values: dict[str, Any] = {
        "tenant": "acme", "principal": "ann ü", "client_version": "1", "identity": "",
        "expires_at": 5.0, "serial": 7,
    }  # fmt: skip
    return SessionClaims(**{**values, **changes})


SECRETS = {"k1": b"1" * 32, "k2": b"2" * 32}


def test_a_session_is_read_by_whoever_has_its_key() -> None:
    text = seal_session(claims(), kid="k1", secret=SECRETS["k1"])
    assert open_session_token(text, SECRETS) == claims()
    with pytest.raises(SessionTokenError):
        open_session_token(text, {"k2": SECRETS["k2"]})


def test_the_longest_session_fits_its_metadata() -> None:
    long = claims(
        tenant="t" * 63, principal="\U0001f600" * 128, client_version="v" * 64, identity="f" * 32
    )
    text = seal_session(long, kid="a" * 32, secret=SECRETS["k1"])
    assert len(text) <= 4096
    assert open_session_token(text, {"a" * 32: SECRETS["k1"]}) == long


def forged(part: int, text: str) -> str:
    parts = seal_session(claims(), kid="k1", secret=SECRETS["k1"]).split(".")
    parts[part] = text
    return ".".join(parts)


@pytest.mark.parametrize(
    "text",
    [
        "", "k1", "k1..", "..", "a" * 5000, "k1.\u00fc.x", "k1.a.b.c",
        forged(0, "k2"), forged(0, ""), forged(2, ""), forged(2, "0" * 64),
        forged(1, base64.urlsafe_b64encode(b'{"t":"globex"}').decode().rstrip("=")),
    ],
)  # fmt: skip
def test_a_forged_session_is_refused(text: str) -> None:
    with pytest.raises(SessionTokenError):
        open_session_token(text, SECRETS)


def test_every_changed_character_of_a_session_is_noticed() -> None:
    text = seal_session(claims(), kid="k1", secret=SECRETS["k1"])
    for place in range(len(text)):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(HpccError):
            open_session_token(changed, SECRETS)


def test_a_key_of_the_ring_says_when_it_ends() -> None:
    key = RingKey(kid="a" * 32, public=b"p" * 32, sealed=b"", not_before=1.0, ends_at=2.0)
    assert KeyRing("farm", (key,)).listed(1.5) == (key,)
    assert KeyRing("farm", (key,)).listed(2.0) == ()
