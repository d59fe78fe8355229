"""Directories of hpcc that another user owns, or that are behind another user's."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcc.config import owners
from hpcc.config.owners import refuse_foreign_owner
from hpcc.config.paths import Paths
from hpcc.core import CallerError

_OTHER = 12345
_ME = 4711


class _Owners:
    """Gives paths below a directory owners, in every test run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: dict[str, int] = {}
        self._lstat = os.lstat
        monkeypatch.setattr("hpcc.config.owners.os.lstat", self)

    def __call__(self, path: str) -> SimpleNamespace:
        status = self._lstat(path)
        return SimpleNamespace(st_uid=self.of.get(path, 0), st_mode=status.st_mode)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> _Owners:
    monkeypatch.setattr(owners, "_unmapped_owner", lambda: None)
    return _Owners(monkeypatch)


def _refusal(place: Path, env: dict[str, str] | None = None) -> str:
    given = {"HPCC_DIR": str(place), **(env or {})}
    paths = Paths.from_env(given)
    try:
        refuse_foreign_owner(paths, given, uid=_ME)
    except CallerError as error:
        assert error.reason == "foreign-owner"
        return str(error)
    return ""


def test_our_own_directories_and_those_of_root_are_taken(given: _Owners, tmp_path: Path) -> None:
    assert _refusal(tmp_path / "not" / "yet" / "there") == ""
    for name in ("cache", "state", "config", "run"):
        (tmp_path / name).mkdir()
        given.of[str(tmp_path / name)] = _ME
    assert _refusal(tmp_path) == ""


@pytest.mark.parametrize("name", ["", "cache", "state", "config", "config/hpcc.toml", "run"])
def test_what_another_user_owns_is_refused(name: str, given: _Owners, tmp_path: Path) -> None:
    for directory in ("cache", "state", "config", "run"):
        (tmp_path / directory).mkdir()
    (tmp_path / "config/hpcc.toml").touch()
    foreign = tmp_path / name
    given.of[str(foreign)] = _OTHER
    told = _refusal(tmp_path)
    assert told.startswith(f"{foreign} belongs to uid {_OTHER}")
    assert f"HPCC_TRUST_UID={_OTHER}" in told
    assert _refusal(tmp_path, {"HPCC_TRUST_UID": str(_OTHER)}) == ""
    for wrong in ("1", "", "x", "-1", "١٢٣٤٥"):
        assert _refusal(tmp_path, {"HPCC_TRUST_UID": wrong}) == told


def test_root_below_another_users_home_is_refused(given: _Owners, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    given.of[str(home)] = _OTHER
    for env in (
        {"HOME": str(home)},
        {"HPCC_DIR": str(home / "h")},
        {"HPCC_DIR": str(tmp_path / "x/../home/h")},
        {"HOME": "/none", "XDG_RUNTIME_DIR": str(home)},
        {"HOME": "/none", "XDG_CONFIG_HOME": str(home)},
    ):
        with pytest.raises(CallerError, match="belongs to uid 12345"):
            refuse_foreign_owner(Paths.from_env(env), env, uid=0)


def test_a_link_of_another_user_and_a_link_through_their_directory_are_refused(
    given: _Owners, tmp_path: Path
) -> None:
    (tmp_path / "real/cache").mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "theirs/link").symlink_to("../real")
    (tmp_path / "far").symlink_to(tmp_path / "theirs/link")
    assert _refusal(tmp_path / "link") == _refusal(tmp_path / "far") == ""
    given.of[str(tmp_path / "link")] = _OTHER
    given.of[str(tmp_path / "theirs")] = _OTHER
    assert _refusal(tmp_path / "link").startswith(f"{tmp_path / 'link'} belongs")
    assert _refusal(tmp_path / "far").startswith(f"{tmp_path / 'theirs'} belongs")
    assert _refusal(tmp_path / "real") == ""


def test_links_without_end_come_to_an_end(given: _Owners, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    assert _refusal(tmp_path / "a") == ""  # opening it fails later


def test_an_owner_without_a_number_counts_as_root_on_the_way_only(
    given: _Owners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given.of = {"/": 65534, str(tmp_path): 65534}
    assert _refusal(tmp_path).startswith("/ belongs")
    monkeypatch.setattr(owners, "_unmapped_owner", lambda: 65534)
    assert _refusal(tmp_path) == ""
    (tmp_path / "cache").mkdir()
    given.of[str(tmp_path / "cache")] = 65534
    assert _refusal(tmp_path).startswith(f"{tmp_path / 'cache'} belongs")
