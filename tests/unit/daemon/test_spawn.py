"""A started daemon inherits almost nothing from its starter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcc.config.paths import Paths
from hpcc.core import CallerError
from hpcc.daemon.client import daemon_environment
from hpcc.daemon.socket_lock import prepare_private_directory
from hpcc.daemon.spawn import MAX_LOG_BYTES, open_log, spawn_daemon


def test_the_daemon_gets_no_variable_of_a_build() -> None:
    kept = {"HOME": "/h", "PATH": "/bin", "LC_ALL": "C", "XDG_CACHE_HOME": "/c", "HPCC_DIR": "/d"}
    dropped = {
        "MAKEFLAGS": "-j --jobserver-auth=3,4",
        "MFLAGS": "-j",
        "PYTHONPATH": "/build",
        "LD_PRELOAD": "/fake.so",
        "CPATH": "/inc",
        "HPCC_DISABLE": "0",
    }
    assert daemon_environment(kept | dropped) == kept


def test_a_log_that_has_grown_large_is_set_aside_once(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "daemon.log").write_bytes(text.encode().ljust(MAX_LOG_BYTES + 1))
        os.close(open_log(tmp_path))
        assert (tmp_path / "daemon.log.1").read_bytes().startswith(text.encode())
        assert (tmp_path / "daemon.log").stat().st_size == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "daemon.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        open_log(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_private_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    prepare_private_directory(tmp_path / "a" / "run")
    assert (tmp_path / "a" / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("how", ["file", "link", "writable"])
def test_a_directory_that_is_not_ours_alone_is_refused(tmp_path: Path, how: str) -> None:
    place = tmp_path / "run"
    if how == "file":
        place.write_text("")
    elif how == "link":
        (tmp_path / "real").mkdir()
        place.symlink_to(tmp_path / "real")
    else:
        place.mkdir()
        place.chmod(0o770)
    with pytest.raises(CallerError) as caught:
        prepare_private_directory(place)
    assert caught.value.reason == "run-dir"


def test_no_log_is_written_in_a_directory_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.lstat
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))

    def lstat(path: str) -> os.stat_result:
        status = look(path)
        return (
            os.stat_result((*status[:4], 12345, *status[5:])) if path == str(tmp_path) else status
        )

    monkeypatch.setattr("hpcc.config.owners.os.lstat", lstat)
    with pytest.raises(CallerError) as caught:
        spawn_daemon(Paths.from_env(os.environ), 5.0)
    assert caught.value.reason == "foreign-owner"
    assert list(tmp_path.iterdir()) == []
