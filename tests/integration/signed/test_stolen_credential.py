"""Attacks of somebody who may write the place where entries are, and has no key that counts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.signed.entry import MAX_OBJECT_BYTES, SignedRecord, split_records
from hpcc.identity.cache_keys import load_signing_key, parse_cache_key
from hpcc_testkit.cache.machines import TeamMachine, signing_key, writer
from hpcc_testkit.services.object_server import ObjectServer, object_server

from .conftest import MAIN, OTHER, Team

_OBJECT = b"hpcc-remote-cache-1\n"
# What a daemon may hold of an object that it refuses, besides buffers on the way.
_MOST_BYTES = MAX_OBJECT_BYTES + (16 << 20)


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture
def http_team(make_team: Callable[..., Team], server: ObjectServer) -> Team:
    return make_team(url=server.url)


def filled(team: Team) -> TeamMachine:
    """Let CI compile both units and upload them."""
    ci = team.ci()
    for command in (MAIN, OTHER):
        assert ci.compile(*command).answer == "run"
    ci.flush()
    return ci


def expect_a_miss(team: Team, name: str, reason: str, **remote: object) -> TeamMachine:
    """Compile as a new colleague; the entry must be refused and the compiler must run."""
    ann = team.machine(name, **remote)
    assert ann.compile(*MAIN).answer == "run"
    assert ann.counted("remote-cache.refused.") == {reason: 1}
    assert ann.count("hit.signed") == 0
    ann.bare(*MAIN[:-1], "bare.o")
    return ann


def joined(records: list[SignedRecord]) -> bytes:
    return _OBJECT + encode_fields(encode_fields(record) for record in records)


def test_a_replaced_entry_is_a_miss(http_team: Team, server: ObjectServer) -> None:
    """The thief signs a result for this very compile, with another key."""
    thief_file = http_team.directory / "thief.key"
    thief = signing_key(thief_file)
    evil = http_team.machine("thief", **writer(thief_file), trusted_keys=())
    (evil.root / "src/main.c").write_text((evil.root / "src/main.c").read_text())
    evil.age()
    evil.compile(*MAIN)
    evil.flush()
    assert len(server.objects) == 1
    expect_a_miss(http_team, "ann", "unknown-key")
    # The thief claims to be CI: its id, and a signature of another key.
    (path,) = server.objects
    (record,) = split_records(server.objects[path])
    ci, theirs = http_team.key.key.kid.encode(), thief.key.kid.encode()
    server.objects[path] = joined([record._replace(header=record.header.replace(theirs, ci))])
    expect_a_miss(http_team, "bob", "signature")


@pytest.mark.parametrize("part", range(3), ids=SignedRecord._fields)
@pytest.mark.parametrize("where", [0, -1])
def test_a_changed_byte_is_a_miss(
    http_team: Team, server: ObjectServer, part: int, where: int
) -> None:
    filled(http_team)
    for path, data in server.objects.items():
        (record,) = split_records(data)
        parts = list(record)
        changed = bytearray(parts[part])
        changed[where] ^= 1
        parts[part] = bytes(changed)
        server.objects[path] = joined([SignedRecord(*parts)])
    ann = http_team.machine("ann")
    assert ann.compile(*MAIN).answer == "run"
    assert sum(ann.counted("remote-cache.refused.").values()) == 1


def test_an_entry_of_another_key_that_was_moved_is_a_miss(
    http_team: Team, server: ObjectServer
) -> None:
    filled(http_team)
    one, two = server.objects
    server.objects[one], server.objects[two] = server.objects[two], server.objects[one]
    expect_a_miss(http_team, "ann", "other-key")


def test_an_entry_of_another_namespace_is_a_miss(http_team: Team, server: ObjectServer) -> None:
    """CI signs forks' builds in another namespace; a thief copies them into the team's."""
    fork = http_team.ci("fork", namespace="forks")
    fork.compile(*MAIN)
    fork.flush()
    team = http_team.ci()
    team.compile(*MAIN)
    team.flush()
    (forks,) = (path for path in server.objects if "/forks/" in path)
    (own,) = (path for path in server.objects if "/default/" in path)
    server.objects[own] = server.objects[forks]
    expect_a_miss(http_team, "ann", "namespace")


def test_a_replay_of_a_revoked_keys_entry_is_a_miss(http_team: Team, server: ObjectServer) -> None:
    filled(http_team)
    kept = dict(server.objects)
    # CI has a new key, and the thief puts the old entry back.
    new_file = http_team.directory / "new.key"
    new = signing_key(new_file)
    ci = http_team.machine("ci2", **writer(new_file), trusted_keys=(new.key.line,))
    ci.compile(*MAIN)
    ci.flush()
    revoked = {"revoked_keys": (http_team.key.key.line,), "trusted_keys": (new.key.line,)}
    bob = http_team.machine("bob", **revoked)
    assert bob.compile(*MAIN).answer == "done"
    server.objects.update(kept)
    expect_a_miss(http_team, "eve", "revoked-key", **revoked)


def test_an_entry_of_an_expired_key_is_a_miss(http_team: Team, server: ObjectServer) -> None:
    old_file = http_team.directory / "old.key"
    old = signing_key(old_file, days=1, now=time.time() - 30 * 86_400)
    late = http_team.machine("late", **writer(old_file))
    assert late.compile(*MAIN).answer == "run"
    late.flush()
    assert late.counted("remote-cache.lost.") == {"expired-key": 1}
    # A holder of the key signs all the same: the reader's clock decides.
    filled(http_team)
    signing, own = load_signing_key(old_file), http_team.key.key
    for path, data in server.objects.items():
        (record,) = split_records(data)
        header = record.header.replace(own.kid.encode(), old.key.kid.encode())
        signature = signing.private.sign(b"hpcc remote cache entry\0" + header)
        server.objects[path] = joined([SignedRecord(header, signature, record.packed)])
    expect_a_miss(http_team, "ann", "expired-key", trusted_keys=(old.key.line, own.line))


def test_without_a_key_that_counts_nothing_is_asked(http_team: Team, server: ObjectServer) -> None:
    filled(http_team)
    server.requests.clear()
    ann = http_team.machine("ann", revoked_keys=(http_team.key.key.kid,))
    assert ann.compile(*MAIN).answer == "run"
    assert ann.counted("remote-cache.") == {"no-keys": 1}
    assert server.requests == []


def test_an_expiry_that_was_moved_is_another_key(http_team: Team) -> None:
    """What a person compared with the fingerprint is the role and the last day, too."""
    key = http_team.key.key
    moved = parse_cache_key(key.line.replace(key.last_day.isoformat(), "2099-01-01"))
    other = replace(key, role="x" + key.role)
    assert key.kid == moved.kid == other.kid
    assert len({k.fingerprint for k in (key, moved, other)}) == 3


def test_a_zip_bomb_is_a_miss_also_if_it_is_signed(http_team: Team, server: ObjectServer) -> None:
    filled(http_team)
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(1 << 30))
    assert len(bomb) < 1 << 20
    for path, data in server.objects.items():
        (record,) = split_records(data)
        server.objects[path] = joined([record._replace(packed=bomb)])
    expect_a_miss(http_team, "ann", "signature")
    # Signed by CI's key itself: the announced size is compared first, and nothing is unpacked.
    signing = load_signing_key(http_team.key_file)
    for path, data in server.objects.items():
        (record,) = split_records(data)
        import hashlib

        head = record.header[:-32] + hashlib.sha256(bomb).digest()
        signature = signing.private.sign(b"hpcc remote cache entry\0" + head)
        server.objects[path] = joined([SignedRecord(head, signature, bomb)])
    before = _peak_bytes()
    expect_a_miss(http_team, "bob", "too-large")
    assert _peak_bytes() - before < 200 << 20


def test_a_flood_of_records_is_a_miss(http_team: Team, server: ObjectServer) -> None:
    filled(http_team)
    for path, data in server.objects.items():
        (record,) = split_records(data)
        server.objects[path] = joined([record] * 5)
    expect_a_miss(http_team, "ann", "malformed")


def test_an_unsigned_entry_is_a_miss(http_team: Team, server: ObjectServer) -> None:
    filled(http_team)
    for path, data in server.objects.items():
        (record,) = split_records(data)
        server.objects[path] = joined([record._replace(signature=b"")])
    expect_a_miss(http_team, "ann", "malformed")


def test_a_foreign_record_beside_a_good_one_takes_nothing_away(
    http_team: Team, server: ObjectServer
) -> None:
    filled(http_team)
    for path, data in server.objects.items():
        (record,) = split_records(data)
        server.objects[path] = joined([record._replace(packed=b"x"), record])
    ann = http_team.machine("ann")
    assert ann.compile(*MAIN).answer == "done"
    assert ann.counted("remote-cache.refused.") == {"signature": 1}


@pytest.mark.parametrize(
    ("trouble", "counted"),
    [
        ("endless", "refused.malformed"),
        ("lying-length", "failed.store-http"),
        ("short", "failed.store-http"),
        ("half", "refused.malformed"),
        ("encoded", "refused.malformed"),
        ("silent", "failed.store-timeout"),
        ("drip", "failed.store-timeout"),
        ("header-drip", "failed."),
        ("error", "failed.store-http"),
        ("denied", "failed.store-denied"),
        ("garbage", "failed.store-http"),
    ],
)
def test_a_server_in_trouble_costs_one_local_compile(
    http_team: Team, server: ObjectServer, trouble: str, counted: str
) -> None:
    filled(http_team)
    server.trouble = trouble
    ann = http_team.machine("ann", timeout_seconds=1.0)
    assert ann.compile(*MAIN).answer == "run"
    found = ann.counted("remote-cache.")
    assert any(name.startswith(counted) for name in found), found
    assert server.sent_bytes < _MOST_BYTES
    assert ann.read("main.o")


def test_a_redirect_to_the_metadata_address_is_not_followed(
    http_team: Team, server: ObjectServer
) -> None:
    filled(http_team)
    with object_server() as inner:
        server.trouble = "redirect"
        for to in ("http://169.254.169.254/latest/meta-data/", inner.url + "/secret"):
            server.redirect_to = to
            ann = http_team.machine(f"ann{len(to)}")
            assert ann.compile(*MAIN).answer == "run"
            assert ann.counted("remote-cache.failed.") == {"store-redirect": 1}
        assert inner.requests == []


def test_the_metadata_address_itself_is_not_a_place(make_team: Callable[..., Team]) -> None:
    team = make_team(url="https://169.254.169.254/latest")
    ann = team.machine("ann")
    assert ann.compile(*MAIN).answer == "run"
    assert ann.counted("remote-cache.failed.") == {"store-address": 1}


def test_a_clone_that_proposes_keys_gets_nothing_by_it(
    http_team: Team, server: ObjectServer
) -> None:
    """The `.hpcc` of a hostile clone names the thief's key; nobody has confirmed it."""
    thief_file = http_team.directory / "thief.key"
    thief = signing_key(thief_file)
    marker = f'proposed_keys = ["{thief.key.line}"]\n'
    evil = http_team.machine("thief", marker=marker, **writer(thief_file), trusted_keys=())
    evil.compile(*MAIN)
    evil.flush()
    ann = http_team.machine("ann", marker=marker)
    assert ann.compile(*MAIN).answer == "run"
    assert ann.counted("remote-cache.refused.") == {"unknown-key": 1}
    # A user without any key sends no request at all.
    server.requests.clear()
    bob = http_team.machine("bob", marker=marker, trusted_keys=())
    assert bob.compile(*MAIN).answer == "run"
    assert server.requests == []


def test_a_clone_cannot_name_a_place_or_a_credential(http_team: Team) -> None:
    for line in ('url = "http://127.0.0.1:1/x"', 'credentials_file = "/etc/x"', "[cache.remote]"):
        name = f"ann{len(line)}"
        ann = http_team.machine(name, marker=line + "\n")
        assert ann.compile(*MAIN).answer == "run"
        assert ann.count("private.marker-key") == 1


def test_a_clone_can_revoke_a_key_for_itself(http_team: Team) -> None:
    filled(http_team)
    kid = http_team.key.key.kid
    ann = http_team.machine("ann", marker=f'revoked_keys = ["{kid}"]\n')
    assert ann.compile(*MAIN).answer == "run"
    assert http_team.machine("bob").compile(*MAIN).answer == "done"


def test_a_fifo_and_a_link_in_a_shared_directory_are_not_read(team: Team, tmp_path: Path) -> None:
    filled(team)
    secret = tmp_path / "secret"
    secret.write_text("x")
    files = sorted(p for p in (tmp_path / "shared").rglob("*") if p.is_file())
    for path, kind in zip(files, ("fifo", "link"), strict=True):
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(secret)
    ann = team.machine("ann")
    assert [ann.compile(*c).answer for c in (MAIN, OTHER)] == ["run", "run"]
    assert ann.count("hit.signed") == 0


def test_a_link_in_a_directorys_place_makes_nobody_write_elsewhere(
    team: Team, tmp_path: Path
) -> None:
    """A person who may write in the shared directory would choose where CI, root perhaps, writes."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    filled(team)
    shared = tmp_path / "shared"
    tops = [path for path in shared.iterdir() if path.is_dir()]
    assert tops
    for top in tops:
        shutil.rmtree(top)
        top.symlink_to(elsewhere)
    again = team.ci("ci2")
    assert again.compile(*MAIN).answer == "run"
    again.flush()
    assert list(elsewhere.rglob("*")) == []


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_a_fetched_result_is_stored_by_its_key(http_team: Team) -> None:
    """A user who trusts another key for the same place gets nothing of what the first one signed."""
    filled(http_team)
    other = signing_key(http_team.directory / "other.key")
    ann = http_team.machine("ann")
    assert ann.compile(*MAIN).answer == "done"
    ann.restart()
    ann.remote["trusted_keys"] = (other.key.line,)
    assert ann.compile(*MAIN).answer == "run"
