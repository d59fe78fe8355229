from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from hpcc.cache.signed.trust import (
    Confirmed,
    TrustBook,
    TrustFile,
    change_trust,
    load_trust,
    place_name,
)
from hpcc.config.remote_cache import RemoteCacheSettings
from hpcc.core import CallerError
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import CacheKey, make_signing_key

SETTINGS = RemoteCacheSettings(url="https://cache.example.com/x")
NONE: frozenset[str] = frozenset()


@pytest.fixture
def key(tmp_path: Path) -> CacheKey:
    return make_signing_key(tmp_path / "key", days=10, now=time.time()).key


def test_a_confirmation_is_bound_to_root_place_and_line(tmp_path: Path, key: CacheKey) -> None:
    path = tmp_path / "trust.json"
    row = Confirmed("/home/ann/project", place_name(SETTINGS), key.line)
    change_trust(path, lambda trust: trust.including(row))
    book = TrustBook(path, SETTINGS, time.time)
    assert book.keys(b"/home/ann/project", NONE) == (key,)
    for root in (b"/home/ann/project2", b"/home/ann", b"/home/ann/project/", b""):
        assert book.keys(root, NONE) == ()
        assert book.judge(root, NONE, key.kid) is RefusedEntry.UNKNOWN_KEY
    for other in (
        RemoteCacheSettings(url="https://cache.example.com/y"),
        RemoteCacheSettings(url=SETTINGS.url, namespace="other"),
        RemoteCacheSettings(url=SETTINGS.url, endpoint="https://x.example.com"),
    ):
        assert TrustBook(path, other, time.time).keys(b"/home/ann/project", NONE) == ()


def test_a_revocation_counts_wherever_it_is_written(tmp_path: Path, key: CacheKey) -> None:
    path = tmp_path / "trust.json"
    own = RemoteCacheSettings(url=SETTINGS.url, trusted_keys=(key.line,))
    both = RemoteCacheSettings(url=SETTINGS.url, trusted_keys=(key.line,), revoked_keys=(key.kid,))
    book = TrustBook(path, own, time.time)
    assert book.judge(b"/a", NONE, key.kid) == key
    assert book.judge(b"/a", frozenset({key.kid}), key.kid) is RefusedEntry.REVOKED_KEY
    assert TrustBook(path, both, time.time).judge(b"/a", NONE, key.kid) is RefusedEntry.REVOKED_KEY
    change_trust(path, lambda trust: trust.revoking(key.kid))
    assert book.keys(b"/a", NONE) == ()  # the same book: the file is read again
    assert book.judge(b"/a", NONE, key.kid) is RefusedEntry.REVOKED_KEY


def test_a_key_counts_until_its_last_day_is_over(tmp_path: Path, key: CacheKey) -> None:
    now = [time.time()]
    settings = RemoteCacheSettings(url=SETTINGS.url, trusted_keys=(key.line,))
    book = TrustBook(tmp_path / "trust.json", settings, lambda: now[0])
    now[0] += 10 * 86_400
    assert book.judge(b"/a", NONE, key.kid) == key
    now[0] += 86_400
    assert book.keys(b"/a", NONE) == ()
    assert book.judge(b"/a", NONE, key.kid) is RefusedEntry.EXPIRED_KEY


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'"x"', b"null", b"{}", b'{"version": 2, "confirmed": [], "revoked": []}',
     b'{"version": 1, "confirmed": [], "revoked": ["x"]}',
     b'{"version": 1, "confirmed": [{"root": 1, "place": "", "line": ""}], "revoked": []}',
     b'{"version": 1, "confirmed": [1], "revoked": []}', b"\xff", b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_file_takes_all_trust_away(tmp_path: Path, key: CacheKey, data: bytes) -> None:
    """It could have held a revocation."""
    path = tmp_path / "trust.json"
    path.write_bytes(data)
    settings = RemoteCacheSettings(url=SETTINGS.url, trusted_keys=(key.line,))
    book = TrustBook(path, settings, time.time)
    assert book.keys(b"/a", NONE) == ()
    with pytest.raises(CallerError, match="damaged"):
        load_trust(path)
    with pytest.raises(CallerError, match="damaged"):
        change_trust(path, lambda trust: trust)
    assert path.read_bytes() == data
    path.unlink()
    assert book.keys(b"/a", NONE) == (key,)


def test_two_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    path, ids = tmp_path / "state/trust.json", [f"{n:032x}" for n in range(40)]

    def revoke(kid: str) -> None:
        change_trust(path, lambda trust: trust.revoking(kid))

    threads = [threading.Thread(target=revoke, args=(kid,)) for kid in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load_trust(path) == TrustFile((), frozenset(ids))
    assert path.stat().st_mode & 0o777 == 0o600
