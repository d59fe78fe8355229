"""The sealing key of a control store is changed or lost: what stays, and what is made anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import IntegrityError
from hpcc.identity.key_ring import KeyRingError, Sealer
from hpcc.ports import ControlStore, ControlStoreError, Entry, SystemClock
from hpcc.scheduler.base.enrolled import CA_KEY, CA_SPACE, WORKER_SPACE, EnrolledWorker
from hpcc.scheduler.base.signing import KEY, SPACE, SigningKeys
from hpcc.scheduler.enrolment import Enrolment
from hpcc.scheduler.resealing import (
    TENANTS,
    TOKEN_KEYS,
    WORKER_CA,
    replace_lost,
    reseal,
    sealed_state,
)
from hpcc.scheduler.tenants.stored import NoTableError, TableStore

OLD, NEW, STRANGE = (Sealer(c * 32) for c in (b"o", b"n", b"s"))
REVOKED = EnrolledWorker(key_id="k", enrolled_at=1.0, expires_at=2.0, revoked_at=3.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedControlStore]:
    with EmbeddedControlStore(tmp_path / "control.sqlite", SystemClock()) as store:
        yield store


async def loaded(store: ControlStore, sealer: Sealer) -> tuple[SigningKeys, Enrolment]:
    clock = SystemClock()
    keys = SigningKeys(store, sealer, clock, key_seconds=60.0, lifetime_seconds=60.0)
    enrolment = Enrolment(store, sealer, clock, certificate_seconds=60.0)
    await keys.load()
    await enrolment.load()
    return keys, enrolment


async def farm(store: ControlStore) -> tuple[SigningKeys, Enrolment]:
    keys, enrolment = await loaded(store, OLD)
    await keys.rotate(announce_seconds=0.0)
    return keys, enrolment


async def entries(store: ControlStore) -> list[Entry | None]:
    return [await store.entry_or_none(SPACE, KEY), await store.entry_or_none(CA_SPACE, CA_KEY)]


async def test_with_the_old_key_every_secret_stays(store: EmbeddedControlStore) -> None:
    keys, enrolment = await farm(store)
    assert (await sealed_state(store, NEW)).lost == (TOKEN_KEYS, WORKER_CA)
    await reseal(store, OLD, NEW)
    assert (await sealed_state(store, NEW)).lost == ()
    assert (await sealed_state(store, OLD)).lost == (TOKEN_KEYS, WORKER_CA)
    again, enrolled = await loaded(store, NEW)
    assert again.token_keys == keys.token_keys
    assert len(again.token_keys) == 2
    assert again.secrets() == keys.secrets()
    assert enrolled.ca.certificate_pem == enrolment.ca.certificate_pem
    before = await entries(store)
    await reseal(store, OLD, NEW)
    await reseal(store, STRANGE, NEW)
    assert await entries(store) == before


async def test_a_wrong_old_key_changes_nothing(store: EmbeddedControlStore) -> None:
    await farm(store)
    before = await entries(store)
    with pytest.raises(KeyRingError):
        await reseal(store, STRANGE, NEW)
    assert await entries(store) == before


class Breaking:
    """A control store that fails at the CA."""

    def __init__(self, store: ControlStore) -> None:
        self.entry_or_none, self._store = store.entry_or_none, store

    async def put(self, space: str, key: str, value: bytes, *, expect: int) -> Entry:
        if space == CA_SPACE:
            raise ControlStoreError("away")
        return await self._store.put(space, key, value, expect=expect)


async def test_an_interrupted_change_is_repeated(store: EmbeddedControlStore) -> None:
    keys, _ = await farm(store)
    breaking: ControlStore = Breaking(store)  # type: ignore[assignment]  # what it uses
    with pytest.raises(ControlStoreError):
        await reseal(breaking, OLD, NEW)
    assert (await sealed_state(store, NEW)).lost == (WORKER_CA,)
    await reseal(store, OLD, NEW)
    assert (await loaded(store, NEW))[0].token_keys == keys.token_keys


async def test_a_wrong_old_key_is_refused_for_each_secret(store: EmbeddedControlStore) -> None:
    await farm(store)
    breaking: ControlStore = Breaking(store)  # type: ignore[assignment]  # what it uses
    with pytest.raises(ControlStoreError):
        await reseal(breaking, OLD, NEW)
    # The ring is sealed with the new key, and the CA with the old one.
    with pytest.raises(KeyRingError, match=WORKER_CA):
        await reseal(store, STRANGE, NEW)
    await store.delete(CA_SPACE, CA_KEY)
    with pytest.raises(KeyRingError, match=TOKEN_KEYS):
        await reseal(store, STRANGE, OLD)


async def test_lost_secrets_are_made_anew_and_revoked_workers_stay_revoked(
    store: EmbeddedControlStore,
) -> None:
    keys, enrolment = await farm(store)
    await store.put(WORKER_SPACE, "w1", _encoded(REVOKED), expect=0)
    await replace_lost(store, NEW, SystemClock())
    again, enrolled = await loaded(store, NEW)
    assert again.issuer == keys.issuer
    assert not {kid for kid, _ in again.token_keys} & {kid for kid, _ in keys.token_keys}
    assert enrolled.ca.certificate_pem != enrolment.ca.certificate_pem
    assert enrolled.is_revoked("w1")
    assert (await sealed_state(store, NEW)).workers == ("w1",)
    # What the key opens stays, so a second time nothing changes.
    before = await entries(store)
    await replace_lost(store, NEW, SystemClock())
    assert await entries(store) == before


async def test_a_damaged_ring_is_lost_too(store: EmbeddedControlStore) -> None:
    await farm(store)
    entry = await store.entry_or_none(SPACE, KEY)
    assert entry is not None
    await store.put(SPACE, KEY, b"{}", expect=entry.version)
    assert (await sealed_state(store, OLD)).lost == (TOKEN_KEYS,)
    await replace_lost(store, OLD, SystemClock())
    await loaded(store, OLD)


TABLE = f"""
[tenants.acme]
images = ["sha256:{"ab" * 32}"]
minimum_isolation = "qemu/tcg"
identity = {{issuer = "https://acme.example", audience = "a", client_ids = ["c"]}}
""".encode()


async def test_a_tenants_table_keeps_its_text_or_has_to_be_applied_again(
    store: EmbeddedControlStore,
) -> None:
    clock = SystemClock()
    await TableStore(store, OLD, clock).replace(TABLE, None, by="", reason="")
    assert (await sealed_state(store, NEW)).lost == (TENANTS,)
    with pytest.raises(KeyRingError, match=TENANTS):
        await reseal(store, STRANGE, NEW)
    for _ in range(2):
        await reseal(store, OLD, NEW)
        assert (await TableStore(store, NEW, clock).read()).text == TABLE
    await replace_lost(store, NEW, clock)
    assert (await TableStore(store, NEW, clock).read()).text == TABLE
    await replace_lost(store, STRANGE, clock)
    assert (await sealed_state(store, STRANGE)).opens == ()
    with pytest.raises(NoTableError):
        await TableStore(store, STRANGE, clock).read()


def _encoded(worker: EnrolledWorker) -> bytes:
    return json.dumps(asdict(worker)).encode()


@pytest.mark.parametrize("value", [b"[" * 100_000, b"[]", b"9" * 5000, b'{"sealed": []}', b"\xff"])
async def test_who_writes_the_store_gives_a_scheduler_one_error_and_no_other(
    store: EmbeddedControlStore, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await farm(store)
    entry = await store.entry_or_none(CA_SPACE, CA_KEY)
    assert entry is not None
    await store.put(CA_SPACE, CA_KEY, value, expect=entry.version)
    with pytest.raises(IntegrityError, match="the worker CA in the control store is damaged"):
        await loaded(store, OLD)
    await store.delete(CA_SPACE, CA_KEY)
    await store.put(WORKER_SPACE, "w1", value, expect=0)
    await loaded(store, OLD)
    assert "worker w1: an enrolment entry is malformed" in caplog.text
