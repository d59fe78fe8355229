"""Announced certificates: shared by schedulers, sealed, and the files of a switch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import CallerError
from hpcc.identity.key_ring import Sealer
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.known_certificates import KnownCertificates
from hpcc.identity.tls import PinnedPeer, TlsIdentity, certificate_id
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.schedulers import pins_of
from hpcc.scheduler.base.certificate import (
    TLS_NAME,
    SchedulerCertificate,
    make_next,
    next_or_none,
    switch,
)
from hpcc.scheduler.certificates import SPACE, CertificateBook

CLOCK = SystemClock()
SEALER, OTHER = Sealer(b"a" * 32), Sealer(b"b" * 32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedControlStore]:
    with EmbeddedControlStore(tmp_path / "control.sqlite", CLOCK) as store:
        yield store


def made(directory: Path, name: str = TLS_NAME) -> TlsIdentity:
    return load_or_create_tls(directory, name, clock=CLOCK)


async def test_schedulers_announce_the_same(store: EmbeddedControlStore, tmp_path: Path) -> None:
    one, two = (CertificateBook(store, SEALER, CLOCK) for _ in range(2))
    first, second = (made(tmp_path / name).certificate_der for name in "ab")
    await one.keep(first)
    await two.keep(second)
    await one.keep(first)
    assert set(one.announced) == set(two.announced) == {first, second}
    await one.retire(certificate_id(first))
    assert one.announced == (second,)
    await two.keep(second)
    assert two.announced == (second,)


async def test_who_writes_the_store_announces_nothing(
    store: EmbeddedControlStore, tmp_path: Path
) -> None:
    own, foreign = made(tmp_path / "a").certificate_der, made(tmp_path / "b").certificate_der
    thief, book = CertificateBook(store, OTHER, CLOCK), CertificateBook(store, SEALER, CLOCK)
    await thief.announce(foreign)
    await store.put(SPACE, "x", b"junk", expect=0)
    await book.keep(own)
    assert book.announced == (own,)
    # A sealed entry counts under its own name only.
    entry = await store.entry_or_none(SPACE, certificate_id(own))
    assert entry is not None
    await store.put(SPACE, "0" * 32, entry.value, expect=0)
    assert list(await book.read()) == [certificate_id(own)]


def test_a_switch_changes_what_new_connections_get(tmp_path: Path) -> None:
    files = SchedulerCertificate(tmp_path, CLOCK)
    before = files.load()
    assert files.changed_or_none() is None
    with pytest.raises(CallerError, match="announce-certificate"):
        switch(tmp_path)
    following = make_next(tmp_path, CLOCK)
    assert files.own() == (before.certificate_der, following.certificate_der)
    assert files.changed_or_none() is None
    switch(tmp_path)
    changed = files.changed_or_none()
    assert changed is not None
    assert changed.certificate_pem == following.certificate_pem
    assert files.changed_or_none() is None
    assert next_or_none(tmp_path, CLOCK) is None
    assert files.own() == (following.certificate_der,)


@pytest.mark.parametrize("reader", ["load", "own"])
def test_a_switch_that_was_cut_off_is_finished(tmp_path: Path, reader: str) -> None:
    files = SchedulerCertificate(tmp_path, CLOCK)
    files.load()
    following = make_next(tmp_path, CLOCK)
    name = f"{TLS_NAME}.key"
    (tmp_path / "next" / name).replace(tmp_path / name)
    if reader == "load":
        assert files.load() == following
    else:
        assert files.own() == (following.certificate_der,)
        changed = files.changed_or_none()
        assert changed is not None
        assert changed.certificate_pem == following.certificate_pem
    assert made(tmp_path) == following


def test_what_is_announced_counts_until_another_is_configured(tmp_path: Path) -> None:
    old, new, other = (made(tmp_path / name) for name in "abc")
    file = tmp_path / "known.json"
    known = KnownCertificates(old.certificate_pem.decode(), file)
    assert not known.learn(())
    assert not known.learn((old.certificate_der,))
    assert not known.learn((b"junk",))
    assert not known.learn((made(tmp_path / "d", "evil.example").certificate_der,))
    assert known.learn((new.certificate_der, old.certificate_der))
    both = old.certificate_pem + new.certificate_pem
    assert known.peer.certificate_pem == both
    assert KnownCertificates(old.certificate_pem.decode(), file).peer.certificate_pem == both
    assert file.stat().st_mode & 0o777 == 0o600
    assert known.learn((new.certificate_der,))
    assert known.peer.certificate_pem == new.certificate_pem
    again = KnownCertificates(other.certificate_pem.decode(), file)
    assert again.peer.certificate_pem == other.certificate_pem


def test_a_configured_certificate_stays_until_it_was_announced_and_is_not_any_more(
    tmp_path: Path,
) -> None:
    one, other = made(tmp_path / "a"), made(tmp_path / "b")
    file, both = tmp_path / "known.json", one.certificate_pem + other.certificate_pem

    def known() -> KnownCertificates:
        return KnownCertificates(both.decode(), file)

    # The other scheduler has just started: the first one does not announce it yet.
    assert not known().learn((one.certificate_der,))
    assert known().peer.certificate_pem == both
    assert not known().learn((one.certificate_der, other.certificate_der))
    assert known().learn((one.certificate_der,))
    assert known().peer.certificate_pem == one.certificate_pem
    # What an earlier version wrote has no list of those that were announced.
    table = json.loads(file.read_text())
    del table["seen"]
    file.write_text(json.dumps(table))
    assert known().peer.certificate_pem == one.certificate_pem
    assert known().learn((one.certificate_der,))
    assert known().peer.certificate_pem == both


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"configured": 1, "certificates": 2}', "\x00"])
def test_a_damaged_file_of_announced_certificates_is_not_used(tmp_path: Path, text: str) -> None:
    own, file = made(tmp_path / "a"), tmp_path / "known.json"
    file.touch(mode=0o600)
    file.write_text(text)
    known = KnownCertificates(own.certificate_pem.decode(), file)
    assert known.peer.certificate_pem == own.certificate_pem


def test_a_kept_certificate_of_another_name_is_not_used(tmp_path: Path) -> None:
    own, following = made(tmp_path / "a"), made(tmp_path / "b")
    other, file = made(tmp_path / "c", "mallory"), tmp_path / "known.json"
    known = KnownCertificates(own.certificate_pem.decode(), file)
    assert known.learn([following.certificate_der])
    text = file.read_text()
    file.write_text(json.dumps(json.loads(text) | {"certificates": other.certificate_pem.decode()}))
    again = KnownCertificates(own.certificate_pem.decode(), file)
    assert again.peer == PinnedPeer.from_pem(own.certificate_pem)


def test_certificates_with_their_own_subjects_are_shown_by_any_scheduler(tmp_path: Path) -> None:
    pems = b"".join(made(tmp_path / name).certificate_pem for name in "abc")
    assert pins_of(pems, 2) == [pems, pems]
    one = made(tmp_path / "a").certificate_pem
    with pytest.raises(CallerError, match="in the same order"):
        pins_of(one * 2, 3)
    assert pins_of(one * 2 + pems[len(one) :], 2)[0].startswith(one)
    with pytest.raises(CallerError):
        pins_of(b"junk", 1)
