"""The scheduler's list of result keys: listed, kept, expired, revoked, equal on all replicas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import CallerError, ImageDigest, Isolation, NotFoundError, PolicyError
from hpcc.identity.results import ResultSigner
from hpcc.ports import ControlStoreError, Entry
from hpcc.rpc.scheduler.api import Registration
from hpcc.scheduler.result_keys import (
    MAX_LEARNED_A_SECOND,
    REREAD_SECONDS,
    SPACE,
    UNKNOWN_SECONDS,
    ListedKey,
    ResultKeyTable,
)

DAY = 86_400.0


class At:
    """A `Clock` that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def registered(name: str, signer: ResultSigner) -> Registration:
    return Registration(
        worker_id=name,
        endpoint="127.0.0.1:1",
        certificate=b"certificate",
        isolation=Isolation.QEMU_TCG,
        images=(ImageDigest("sha256:" + "ab" * 32),),
        capacity=2,
        result_key=signer.public,
        result_proof=signer.possession(name, b"certificate"),
    )


@pytest.fixture
def clock() -> At:
    return At()


@pytest.fixture
def store(tmp_path: Path, clock: At) -> Iterator[EmbeddedControlStore]:
    with EmbeddedControlStore(tmp_path / "control.sqlite", clock) as store:
        yield store


@pytest.fixture
def table(store: EmbeddedControlStore, clock: At) -> ResultKeyTable:
    return ResultKeyTable(store, clock, 90 * DAY)


@pytest.fixture
def signer(clock: At) -> ResultSigner:
    return ResultSigner(Ed25519PrivateKey.generate(), clock)


async def test_a_key_is_listed_for_every_replica_and_after_restarts(
    store: EmbeddedControlStore, table: ResultKeyTable, clock: At, signer: ResultSigner
) -> None:
    other = ResultKeyTable(store, clock, 90 * DAY)
    assert await other.listed((signer.key_id,)) == {}
    assert await table.note(registered("w1", signer)) == signer.key_id
    clock.at += REREAD_SECONDS
    for reader in (table, other, ResultKeyTable(store, clock, 90 * DAY)):
        assert await reader.listed((signer.key_id, "0" * 32)) == {signer.key_id: signer.public}


async def test_a_key_that_another_replica_listed_just_now_is_found(
    store: EmbeddedControlStore, table: ResultKeyTable, clock: At, signer: ResultSigner
) -> None:
    other = ResultKeyTable(store, clock, 90 * DAY)
    assert await other.listed((signer.key_id,)) == {}
    await table.note(registered("w1", signer))
    clock.at += UNKNOWN_SECONDS
    assert await other.listed((signer.key_id,)) == {signer.key_id: signer.public}


async def test_results_of_a_worker_that_is_gone_stay_good_for_the_lifetime_of_its_key(
    table: ResultKeyTable, clock: At, signer: ResultSigner
) -> None:
    await table.note(registered("w1", signer))
    clock.at += 90 * DAY - 1
    assert await table.listed((signer.key_id,))
    clock.at += REREAD_SECONDS
    assert await table.listed((signer.key_id,)) == {}
    await table.note(registered("w1", signer))
    assert await table.listed((signer.key_id,))


async def test_a_living_workers_key_does_not_expire(
    table: ResultKeyTable, clock: At, signer: ResultSigner
) -> None:
    await table.note(registered("w1", signer))
    for _ in range(100):
        clock.at += DAY
        assert await table.tend([registered("w1", signer)]) == ()
    assert await table.listed((signer.key_id,))


async def test_a_revoked_key_is_off_the_list_for_ever_and_its_worker_is_named(
    store: EmbeddedControlStore, table: ResultKeyTable, clock: At, signer: ResultSigner
) -> None:
    await table.note(registered("w1", signer))
    other = ResultKeyTable(store, clock, 90 * DAY)
    revoked = await other.revoke(signer.key_id)
    assert (revoked.worker, revoked.revoked_at) == ("w1", clock.at)
    clock.at += REREAD_SECONDS
    assert await table.listed((signer.key_id,)) == {}
    assert await table.tend([registered("w1", signer)]) == ("w1",)
    for name in ("w1", "w2"):
        with pytest.raises(PolicyError) as refused:
            await table.note(registered(name, signer))
        assert refused.value.reason == "result-key-revoked"
    clock.at += 1000 * DAY
    assert await table.listed((signer.key_id,)) == {}
    again = await other.revoke(signer.key_id)
    assert again.revoked_at == revoked.revoked_at


async def test_a_key_that_nobody_registered_cannot_be_revoked(table: ResultKeyTable) -> None:
    with pytest.raises(NotFoundError):
        await table.revoke("0" * 32)


async def test_a_worker_that_registers_the_key_of_another_is_refused(
    table: ResultKeyTable, signer: ResultSigner
) -> None:
    for stolen in (
        replace(registered("w1", signer), worker_id="w2"),
        replace(registered("w1", signer), certificate=b"another"),
        replace(registered("w1", signer), result_proof=b""),
        replace(registered("w1", signer), result_key=b""),
    ):
        with pytest.raises(CallerError) as refused:
            await table.note(stolen)
        assert refused.value.reason == "result-key"
    assert await table.all() == {}


class Away:
    """A control store that does not answer."""

    async def entries(self, *_: object, **__: object) -> tuple[Entry, ...]:
        raise ControlStoreError("away")

    entry_or_none = put = entries


async def test_with_the_control_store_away_known_keys_stay_good_and_new_ones_wait(
    table: ResultKeyTable, clock: At, signer: ResultSigner
) -> None:
    await table.note(registered("w1", signer))
    table._store = Away()
    clock.at += REREAD_SECONDS
    assert await table.listed((signer.key_id,))
    assert await table.note(registered("w1", signer)) == signer.key_id
    stranger = ResultSigner(Ed25519PrivateKey.generate(), clock)
    with pytest.raises(ControlStoreError):
        await table.note(registered("w2", stranger))
    # Another scheduler may have listed it. "It is not listed" would be a guess.
    for _ in range(MAX_LEARNED_A_SECOND + 1):
        with pytest.raises(ControlStoreError):
            await table.listed((stranger.key_id,))
    assert await table.listed((signer.key_id,))


async def test_an_entry_that_is_none_hides_no_other(
    store: EmbeddedControlStore, table: ResultKeyTable, clock: At, signer: ResultSigner
) -> None:
    await store.put(SPACE, "f" * 32, b"[]")
    await store.put(SPACE, "e" * 32, b"{")
    await store.put(
        SPACE,
        "d" * 32,
        b'{"key": "xx", "worker": "w", "first_at": 1.0, "last_at": 1e12, "revoked_at": 0.0}',
    )
    await table.note(registered("w1", signer))
    clock.at += REREAD_SECONDS
    assert await table.listed((signer.key_id, "f" * 32, "e" * 32, "d" * 32)) == {
        signer.key_id: signer.public
    }


async def test_the_list_is_bounded_and_makes_room_of_what_expired(
    table: ResultKeyTable, clock: At, signer: ResultSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcc.scheduler.result_keys.MAX_LISTED", 3)
    old = ListedKey(key="00" * 32, worker="w", first_at=0.0, last_at=clock.at)
    table._keys = {f"{n:032x}": old for n in range(3)}
    table._read_at = clock.at
    with pytest.raises(CallerError) as refused:
        await table.note(registered("w1", signer))
    assert refused.value.reason == "too-many-result-keys"
    table._keys = {f"{n:032x}": replace(old, last_at=0.0) for n in range(3)}
    await table.note(registered("w1", signer))
    assert list(table._keys) == [signer.key_id]


async def test_a_worker_is_told_to_replace_a_key_until_it_has(
    store: EmbeddedControlStore, table: ResultKeyTable, clock: At, signer: ResultSigner
) -> None:
    await table.note(registered("w1", signer))
    assert table.due_or_empty(signer.public) == ""
    await ResultKeyTable(store, clock, 90 * DAY).order(signer.key_id)
    clock.at += REREAD_SECONDS
    await table.listed(())
    assert table.due_or_empty(signer.public) == signer.key_id
    new = ResultSigner(Ed25519PrivateKey.generate(), clock)
    await table.note(replace(registered("w1", new), is_key_announced=True))
    assert table.due_or_empty(new.public) == ""
    assert {k.key for k in table.newest()} == {new.public.hex()}
    with pytest.raises(CallerError, match="newer key"):
        await table.order(signer.key_id)


async def test_a_key_is_retired_only_when_another_one_signs(
    table: ResultKeyTable, clock: At, signer: ResultSigner
) -> None:
    await table.note(registered("w1", signer))
    new = ResultSigner(Ed25519PrivateKey.generate(), clock)
    clock.at += 1
    for refused in range(2):
        with pytest.raises(CallerError, match="no other key that signs"):
            await table.revoke(signer.key_id, is_retiring=True)
        if not refused:
            await table.note(replace(registered("w1", new), is_key_announced=True))
    # Another worker's key does not count.
    await table.note(registered("w2", ResultSigner(Ed25519PrivateKey.generate(), clock)))
    with pytest.raises(CallerError, match="no other key that signs"):
        await table.revoke(signer.key_id, is_retiring=True)
    await table.note(registered("w1", new))
    assert (await table.revoke(signer.key_id, is_retiring=True)).is_retired
    assert await table.listed((signer.key_id, new.key_id)) == {new.key_id: new.public}
    with pytest.raises(PolicyError):
        await table.note(registered("w1", signer))


async def test_a_revoked_key_gets_no_order(table: ResultKeyTable, signer: ResultSigner) -> None:
    await table.note(registered("w1", signer))
    await table.revoke(signer.key_id)
    with pytest.raises(CallerError, match="is not valid any more"):
        await table.order(signer.key_id)


async def test_no_key_is_due_when_the_list_has_no_room(
    table: ResultKeyTable, clock: At, signer: ResultSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.note(registered("w1", signer))
    await table.order(signer.key_id)
    assert table.due_or_empty(signer.public) == signer.key_id
    monkeypatch.setattr("hpcc.scheduler.result_keys.MAX_LISTED", 501)
    assert table.due_or_empty(signer.public) == ""


async def test_a_key_of_the_configured_age_is_replaced_without_an_order(
    store: EmbeddedControlStore, clock: At, signer: ResultSigner
) -> None:
    table = ResultKeyTable(store, clock, 90 * DAY, 30 * DAY)
    await table.note(registered("w1", signer))
    clock.at += 30 * DAY - 1
    assert table.due_or_empty(signer.public) == ""
    clock.at += 1
    assert table.due_or_empty(signer.public) == signer.key_id
    await table.revoke(signer.key_id)
    assert table.due_or_empty(signer.public) == ""


@pytest.mark.parametrize("public", [b"", b"x", b"\xff" * 32])
async def test_bytes_that_are_not_a_key_are_never_due(table: ResultKeyTable, public: bytes) -> None:
    assert table.due_or_empty(public) == ""


async def test_entries_of_versions_without_rotation_are_read(
    store: EmbeddedControlStore, table: ResultKeyTable, signer: ResultSigner
) -> None:
    await table.note(registered("w1", signer))
    entry = await store.entry_or_none(SPACE, signer.key_id)
    assert entry is not None
    fields = json.loads(entry.value)
    for name in ("replace_at", "is_announced", "is_retired"):
        del fields[name]
    assert ListedKey.of(json.dumps(fields).encode()) == ListedKey.of(entry.value)
    with pytest.raises(ControlStoreError):
        ListedKey.of(json.dumps({**fields, "is_retired": "no"}).encode())
