from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcc.cache.signed.opening import credential
from hpcc.config.remote_cache import RemoteCacheSettings, place_of
from hpcc.core import CallerError

PAIR = {"user": "ci", "password": "open sesame"}
CERTIFICATE = {"certificate_file": "/c", "key_file": "/k"}


def read(tmp_path: Path, table: object, *, url: str = "reapi://cache.example.com/i") -> object:
    file = tmp_path / "secret.json"
    file.write_text(json.dumps(table))
    file.chmod(0o600)
    settings = RemoteCacheSettings(url=url, credentials_file=str(file))
    place = place_of(settings)
    assert place is not None
    return credential(settings, place)


@pytest.mark.parametrize("table", [PAIR, {"token": "t"}, PAIR | CERTIFICATE, CERTIFICATE])
def test_a_reapi_cache_takes_each_kind_of_credential(tmp_path: Path, table: dict[str, str]) -> None:
    assert read(tmp_path, table) == table


@pytest.mark.parametrize(
    "table",
    [
        PAIR | {"token": "t"},  # two answers to one question
        {"user": "ci"},
        {"password": "open sesame"},
        PAIR | {"key_file": "/k"},
        {"user": "ci", "password": 7},
        {"user": "ci", "password": "open\nsesame"},
        {"user": "ci:x", "password": "open sesame"},
        [PAIR],
        "ci:open sesame",
    ],
)
@pytest.mark.parametrize("url", ["reapi://cache.example.com/i", "https://cache.example.com"])
def test_what_would_be_another_credential_is_refused_and_not_repeated(
    tmp_path: Path, table: object, url: str
) -> None:
    with pytest.raises(CallerError, match=r"secret\.json") as raised:
        read(tmp_path, table, url=url)
    assert "sesame" not in str(raised.value)
