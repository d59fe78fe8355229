from __future__ import annotations

import time
from datetime import date
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.identity.cache_keys import (
    load_signing_key,
    make_signing_key,
    parse_cache_key,
    revoked_id,
)

LINE = "hpcc-cache-key-1.entries.2027-06-30.11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


def test_a_line_reads_back_and_its_names_are_stable() -> None:
    """The public key is that of RFC 8032's first test; names never change."""
    key = parse_cache_key(LINE + "\n")
    assert (key.line, key.role, key.last_day) == (LINE, "entries", date(2027, 6, 30))
    assert key.kid == "21fe31dfa154a261626bf854046fd227"
    assert revoked_id(key.kid) == revoked_id(LINE) == key.kid
    assert len(key.fingerprint) == 39


@pytest.mark.parametrize(
    "line",
    [
        "",
        LINE.replace("-1.", "-2."),
        LINE.replace("entries", "packs"),
        LINE.replace("06-30", "06-31"),
        LINE[:-1],
        LINE + "A",
        LINE[:-1] + "p",  # the same 32 bytes with other bits behind them
        LINE.replace("2027", "\uff12\uff10\uff12\uff17"),
        " ".join(LINE),
    ],
)
def test_another_line_is_refused(line: str) -> None:
    with pytest.raises(CallerError, match="not a key of a remote cache"):
        parse_cache_key(line)


def test_another_expiry_or_key_has_another_fingerprint_and_the_same_key_one_id() -> None:
    one, two = parse_cache_key(LINE), parse_cache_key(LINE.replace("2027", "2028"))
    assert one.fingerprint != two.fingerprint
    assert one.kid == two.kid


def test_a_signing_key_is_private_and_belongs_to_its_line(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "key"
    made = make_signing_key(path, days=5, now=time.time())
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_signing_key(path).key == made.key
    made.key.public.verify(made.private.sign(b"x"), b"x")
    pem = path.read_bytes().partition(b"\n")[2]
    path.write_bytes(LINE.encode() + b"\n" + pem)
    with pytest.raises(CallerError, match="differ"):
        load_signing_key(path)
    path.chmod(0o644)
    with pytest.raises(CallerError, match="others can read"):
        load_signing_key(path)
