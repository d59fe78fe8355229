"""Outlines: what counts, what they reveal, and what a comparison says."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.manifest import make_set
from hpcc.cache.key.command_outline import CommandOutline, command_of_table
from hpcc.cache.signed.entry import SignedRecord
from hpcc.cache.signed.outline import (
    MAX_OUTLINES,
    MAX_OUTLINES_BYTES,
    Here,
    Outline,
    join_outlines,
    nearest,
    open_outlines,
    outline,
    sign_outline,
)
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import CacheKey, SigningKey, make_signing_key

NAME = b"n" * 32
COMPILER = b"c" * 32
FILES = {b"\0/src/a.c": b"a" * 32, b"\0/config.h": b"b" * 32, b"/usr/include/stdio.h": b"d" * 32}


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return make_signing_key(tmp_path_factory.mktemp("k") / "key", days=1, now=time.time())


def command(*flags: tuple[bytes, bytes]) -> CommandOutline:
    return CommandOutline(NAME, flags or ((b"-O", b"o2"), (b"-c", b"cc")), b"dd", b"ee")


def made(files: dict[bytes, bytes], own: CommandOutline | None = None, at: float = 1000) -> Outline:
    found = outline(own or command(), COMPILER, make_set(b"", tuple(files.items()), (), ()), at)
    assert found is not None
    return found


def judge_of(key: CacheKey) -> Callable[[str], CacheKey | RefusedEntry]:
    return lambda kid: key if kid == key.kid else RefusedEntry.UNKNOWN_KEY


def opened(data: bytes, key: CacheKey, name: bytes = NAME, space: str = "team") -> list[Outline]:
    return [found for _, found in open_outlines(data, name, space, judge_of(key))]


def test_what_was_signed_comes_back(signing: SigningKey) -> None:
    record = sign_outline(made(FILES), "team", signing)
    assert opened(join_outlines([record]), signing.key) == [made(FILES)]


def test_only_a_signature_for_this_name_counts(signing: SigningKey, tmp_path: Path) -> None:
    record = sign_outline(made(FILES), "team", signing)
    data = join_outlines([record])
    assert opened(data, signing.key, name=b"x" * 32) == []
    assert opened(data, signing.key, space="forks") == []
    for part in range(3):
        parts = list(record)
        parts[part] = parts[part][:-1] + bytes([parts[part][-1] ^ 1])
        assert opened(join_outlines([SignedRecord(*parts)]), signing.key) == []
    thief = make_signing_key(tmp_path / "thief", days=1, now=time.time())
    assert opened(join_outlines([sign_outline(made(FILES), "team", thief)]), signing.key) == []


def test_a_key_of_another_role_signs_no_outline(signing: SigningKey) -> None:
    other = CacheKey(signing.key.raw, "packs", signing.key.last_day)
    record = sign_outline(made(FILES), "team", SigningKey(other, signing.private))
    assert open_outlines(join_outlines([record]), NAME, "team", lambda _: other) == []


def test_a_name_of_a_flag_that_is_a_text_is_refused(signing: SigningKey) -> None:
    """A holder of the key prints nothing on a colleague's terminal."""
    for name in (b"run curl x|sh", b"-O\x1b[2J", b"-" * 60, b""):
        record = sign_outline(made(FILES, command((name, b"vv"))), "team", signing)
        assert opened(join_outlines([record]), signing.key) == []


def test_an_outline_holds_no_name_no_value_and_no_digest(signing: SigningKey) -> None:
    data = join_outlines([sign_outline(made(FILES), "team", signing)])
    for path, digest in FILES.items():
        assert path not in data
        assert path.rpartition(b"/")[2] not in data
        assert digest[:5] not in data
    assert COMPILER[:8] not in data


def test_a_flood_is_not_read(signing: SigningKey) -> None:
    record = sign_outline(made(FILES), "team", signing)
    assert len(opened(join_outlines([record] * 9), signing.key)) == MAX_OUTLINES
    start = b"hpcc-remote-cache-outlines-1\n"
    many = start + encode_fields([encode_fields(record)] * (MAX_OUTLINES + 1))
    assert opened(many, signing.key) == []
    assert opened(start + bytes(MAX_OUTLINES_BYTES), signing.key) == []
    inputs = {b"/%d" % n: b"x" * 32 for n in range(5000)}
    assert outline(command(), COMPILER, make_set(b"", tuple(inputs.items()), (), ()), 1) is None


@given(data=st.binary(max_size=200), start=st.booleans())
def test_any_bytes_are_refused(data: bytes, start: bool) -> None:
    data = b"hpcc-remote-cache-outlines-1\n" + data if start else data
    assert open_outlines(data, NAME, "team", lambda _: RefusedEntry.UNKNOWN_KEY) == []


@given(body=st.lists(st.binary(max_size=30), min_size=5, max_size=7))
def test_what_a_holder_of_the_key_signs_is_checked(body: list[bytes]) -> None:
    own = [b"outline-1", b"team", _KEY.key.role.encode(), _KEY.key.kid.encode(), NAME]
    packed = encode_fields(body)
    header = encode_fields([*own, hashlib.sha256(packed).digest()])
    signature = _KEY.private.sign(b"hpcc remote cache outline\0" + header)
    for found in opened(join_outlines([SignedRecord(header, signature, packed)]), _KEY.key):
        assert len(decode_fields(packed)) == 6
        assert nearest(Here(command(), COMPILER, FILES), [(_KEY.key, found)]) is not None


def test_only_paths_of_the_asker_are_named(signing: SigningKey) -> None:
    there = {**FILES, b"\0/config.h": b"B" * 32, b"\0/secret/plan.h": b"s" * 32}
    here = {**FILES, b"\0/mine.h": b"m" * 32}
    found = nearest(Here(command(), COMPILER, here), [(signing.key, made(there))])
    assert found is not None
    assert found.paths == ("\0/config.h",)
    assert (found.equal, found.only_here, found.only_there) == (2, 1, 1)
    assert (found.is_other_compiler, found.flags, found.is_reordered) == (False, (), False)
    assert "plan" not in repr(found)


def test_flags_are_named_and_their_values_are_not(signing: SigningKey) -> None:
    there = command((b"-O", b"o3"), (b"-c", b"cc"), (b"-D", b"tk"))
    found = nearest(Here(command(), b"C" * 32, FILES), [(signing.key, made(FILES, there))])
    assert found is not None
    assert found.flags == ("-D", "-O")
    assert found.is_other_compiler
    turned = command((b"-c", b"cc"), (b"-O", b"o2"))
    found = nearest(Here(command(), COMPILER, FILES), [(signing.key, made(FILES, turned))])
    assert found is not None
    assert found.is_reordered
    assert not found.flags


def test_the_nearest_is_the_one_with_the_fewest_differences_then_the_newest(
    signing: SigningKey,
) -> None:
    far = made({**FILES, b"\0/config.h": b"B" * 32}, command((b"-O", b"o3")), at=3000)
    near = [made({**FILES, b"\0/config.h": b"B" * 32}, at=at) for at in (1000, 2000)]
    found = nearest(Here(command(), COMPILER, FILES), [(signing.key, o) for o in (far, *near)])
    assert found is not None
    assert (found.at, found.paths) == (2000, ("\0/config.h",))


def test_a_record_of_a_compile_keeps_the_outline_of_its_command() -> None:
    assert command_of_table(command().table()) == command()
    for damaged in (
        None,
        {},
        {**command().table(), "flags": [1]},
        {**command().table(), "name": 1},
    ):
        assert command_of_table(damaged) is None


def _fixed() -> SigningKey:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        return make_signing_key(Path(name, "key"), days=1, now=time.time())


_KEY = _fixed()
