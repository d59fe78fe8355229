"""Targets: what a daemon reads from the place of a team's signed results."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.cache.base.manifest import Absence, make_set
from hpcc.cache.base.twins import Twins
from hpcc.cache.results.results import Result
from hpcc.cache.signed.entry import (
    Content,
    EntryName,
    Opened,
    join_records,
    open_object,
    pack,
    seal,
    sign,
)
from hpcc.compilers.scan.twins import TwinRule
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import ROLE_ENTRIES, CacheKey, SigningKey

_NAME: Final = EntryName(b"k" * 32, b"s" * 32, b"c" * 32)
_TEAM: Final = "team"
_LIMIT: Final = 1 << 16
_BODY: Final = b"body"


@cache
def _signing() -> SigningKey:
    private = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    raw = private.public_key().public_bytes_raw()
    return SigningKey(CacheKey(raw, ROLE_ENTRIES, date(2099, 1, 1)), private)


def remote_entry(data: bytes) -> None:
    """A daemon's reader of an object from a remote cache.

    Input that begins with `body` is what a holder of the key packed and signed: its content is
    unpacked and decoded. Other input is an object of a thief, of which only seeds' records count.
    """
    if data.startswith(_BODY):
        record = seal(_NAME, _TEAM, pack(data.removeprefix(_BODY)), _signing())
        opened = _open(join_records(record, ()))
        assert len(opened.contents) + len(opened.refused) == 1
        for _, content in opened.contents:
            assert content.inputs.files[0][1] == _NAME.source
    else:
        opened = _open(data)
        assert {c.result for _, c in opened.contents} <= {c.result for c in _contents().values()}


def _open(data: bytes) -> Opened:
    key = _signing().key

    def judge(kid: str) -> CacheKey | RefusedEntry:
        return key if kid == key.kid else RefusedEntry.UNKNOWN_KEY

    return open_object(data, _NAME, _TEAM, judge, _LIMIT)


@cache
def _contents() -> Mapping[str, Content]:
    source = (b"\0/src/a.c", _NAME.source)
    plain = make_set(_NAME.share_key, (source,), (), ())
    rich = make_set(
        _NAME.share_key,
        (source, (b"/usr/include/stdio.h", b"h" * 32)),
        (b"\0/inc/x.h",),
        (Absence(b"\0/src", frozenset({b"stdio.h"}), frozenset({b"sys"})),),
        twins=(Twins(TwinRule.DIRECTORY, ((b"directory", b"\0/src"),)),),
    )
    return {
        "plain": Content(plain, Result(b"\x7fELF", b"", b"", b"")),
        "rich": Content(rich, Result(b"\x7fELF", b"a.o: \0a.c", b"out", b"warning")),
    }


def remote_entry_seeds() -> Mapping[str, bytes]:
    """Return objects of one and two records, and contents that a holder of the key may pack."""
    records = {
        name: sign(_NAME, _TEAM, content, _signing()) for name, content in _contents().items()
    }
    seeds = {name: join_records(record, ()) for name, record in records.items()}
    seeds["two"] = join_records(records["plain"], (records["rich"],))
    for name, content in _contents().items():
        seeds[f"body-{name}"] = _BODY + content.encode()
    return seeds
