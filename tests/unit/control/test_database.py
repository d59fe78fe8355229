"""The database URL holds no secret, and no connection over the network is unverified."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.control.database import read_database_config
from hpcc.core import CallerError, ImageDigest
from hpcc.scheduler.base.config import SchedulerConfig

GOOD = "postgresql://hpcc@db1.example:6432,db2.example/farm?sslmode=verify-full&sslrootcert=/etc/ca"


def test_hosts_names_and_roots_are_read() -> None:
    config = read_database_config(GOOD)
    assert config.hosts == (("db1.example", 6432), ("db2.example", 5432))
    assert (config.user, config.database, config.is_verified) == ("hpcc", "farm", True)
    assert config.root_certificate == "/etc/ca"
    local = read_database_config("postgresql://me@/farm?host=/run/pg")
    assert local.hosts == (("/run/pg", 5432),)
    for host in ("127.0.0.1", "[::1]:9", "localhost"):
        assert not read_database_config(f"postgresql://me@{host}/farm").is_verified


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://a@b/c", "must be a URL"),
        ("postgresql://a:secret@localhost/c", "holds a password"),
        ("postgresql://a@db.example/c", "sslmode=verify-full"),
        ("postgresql://a@db.example/c?sslmode=require", "sslmode=verify-full"),
        ("postgresql://a@localhost,db.example/c", "sslmode=verify-full"),
        ("postgresql://a@localhost/c?sslmode=disable", "sslmode=verify-full"),
        ("postgresql://a@localhost/c?options=-csearch_path", "unknown option"),
        ("postgresql://a@/c", "names no host"),
        ("postgresql://localhost/c", "a user and a database"),
        ("postgresql://a@localhost", "a user and a database"),
        ("postgresql://a@localhost:x/c", "not a host"),
        ("postgresql://a@localhost/" + "c" * 3000, "must be a URL"),
    ],
)
def test_a_url_that_is_wrong_or_unsafe_is_refused(url: str, said: str) -> None:
    with pytest.raises(CallerError, match=said) as refused:
        read_database_config(url)
    assert "secret" not in str(refused.value)


def test_a_password_comes_from_a_private_file_and_is_in_no_text(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hush\n")
    file.chmod(0o600)
    config = read_database_config(GOOD, str(file))
    assert config.password == "hush"
    assert "hush" not in f"{config} {config!r}"
    file.chmod(0o640)
    with pytest.raises(CallerError, match="chmod 600"):
        read_database_config(GOOD, str(file))
    for bad in (b"", b"\n", b"\xff", b"x" * 5000):
        file.chmod(0o600)
        file.write_bytes(bad)
        with pytest.raises(CallerError):
            read_database_config(GOOD, str(file))
    with pytest.raises(CallerError):
        read_database_config(GOOD, str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": Path()}, "either 'state' or 'database'"),
        ({"database": "postgresql://a@localhost/c"}, "either 'state' or 'database'"),
        ({"state": Path(), "database": "postgresql://a@localhost/c"}, "sealing_key"),
        ({"state": Path(), "database": "junk", "sealing_key": "/k"}, "must be a URL"),
        ({"database_password_file": "/p"}, "is for 'database'"),
        ({"sealing_key": "k"}, "absolute path"),
        ({"key_seconds": 1.0}, "key_seconds"),
        ({"token_seconds": 601.0}, "token_seconds"),
    ],
)
def test_a_config_with_a_store_that_cannot_work_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    values: dict[str, object] = {
        "keys": tmp_path, "state": tmp_path, "tenant": "acme",
        "tenant_secret": "t" * 32, "minimum_isolation": "qemu/tcg",
        "images": (ImageDigest("sha256:" + "a" * 64).value,),
    }  # fmt: skip
    SchedulerConfig(**values)  # type: ignore[arg-type]  # built by name just above
    with pytest.raises(CallerError, match=said):
        SchedulerConfig(**{**values, **changes})  # type: ignore[arg-type]  # likewise
