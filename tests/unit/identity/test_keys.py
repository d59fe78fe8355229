"""Keys and certificates in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.config.private_file import write_private_file
from hpcc.core import CallerError
from hpcc.identity.keys import (
    key_id,
    load_or_create_seal,
    load_or_create_secret,
    load_or_create_signing_key,
    load_or_create_tls,
)
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import SystemClock


def test_keys_and_certificates_survive_a_restart(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    first = load_or_create_signing_key(keys / "sign.key")
    again = load_or_create_signing_key(keys / "sign.key")
    assert key_id(first.public_key()) == key_id(again.public_key())
    tls = load_or_create_tls(keys, "worker.test", clock=SystemClock())
    assert load_or_create_tls(keys, "worker.test", clock=SystemClock()) == tls
    assert load_or_create_secret(keys / "s") == load_or_create_secret(keys / "s")


def test_what_is_secret_is_readable_by_the_owner_only(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    load_or_create_signing_key(keys / "sign.key")
    load_or_create_secret(keys / "secret")
    load_or_create_tls(keys, "worker.test", clock=SystemClock())
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {f.stat().st_mode & 0o777 for f in keys.iterdir()} == {0o600}


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_or_create_secret(tmp_path / "secret")
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(CallerError, match="chmod 600"):
        load_or_create_secret(tmp_path / "secret")


def test_a_link_in_place_of_a_key_is_refused(tmp_path: Path) -> None:
    load_or_create_secret(tmp_path / "real")
    (tmp_path / "secret").symlink_to(tmp_path / "real")
    with pytest.raises(Exception, match="cannot use"):
        load_or_create_secret(tmp_path / "secret")


def test_a_damaged_key_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sign.key").write_text("nonsense")
    (tmp_path / "sign.key").chmod(0o600)
    with pytest.raises(CallerError, match="remove it"):
        load_or_create_signing_key(tmp_path / "sign.key")


def test_a_pin_carries_the_name_to_check(tmp_path: Path) -> None:
    tls = load_or_create_tls(tmp_path, "worker.test", clock=SystemClock())
    peer = PinnedPeer.from_der(tls.certificate_der)
    assert peer.name == "worker.test"
    assert peer == PinnedPeer.from_pem(tls.certificate_pem)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"x" * 20000])
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(CallerError):
        PinnedPeer.from_der(data)


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"x" * 42, b"x" * 42 + b"\xff"])
def test_a_secret_that_is_none_of_ours_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tenant.secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(
        CallerError, match=r"tenant\.secret does not hold a secret of hpcc: remove it"
    ):
        load_or_create_secret(path)


def test_an_operators_sealing_key_from_another_tool_is_taken_as_it_is(tmp_path: Path) -> None:
    seal = tmp_path / "sealing.key"
    write_private_file(seal, b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n")
    assert load_or_create_seal(seal) == seal.read_bytes().strip()


def test_a_sealing_key_that_is_made_here_is_found_again(tmp_path: Path) -> None:
    assert load_or_create_seal(tmp_path / "k") == load_or_create_seal(tmp_path / "k")


def test_a_short_sealing_key_is_refused_and_kept(tmp_path: Path) -> None:
    seal = tmp_path / "sealing.key"
    write_private_file(seal, b"short\n")
    with pytest.raises(CallerError, match="holds 5 bytes, fewer than 32"):
        load_or_create_seal(seal)
    assert seal.read_bytes() == b"short\n"
