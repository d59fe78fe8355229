"""The files hpcc.toml and farm.json, and the directories that hpcc uses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.config.farm import Farm, load_farm_or_none, parse_farm
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings, load_settings, parse_settings
from hpcc.core import CallerError

FARM = Farm(
    scheduler="127.0.0.1:1", scheduler_certificate_pem="pem", tenant="local", principal="me",
    secret="s", image="gcc@sha256:" + "a" * 64, isolation="qemu/tcg", pid=1,
)  # fmt: skip


def test_no_config_file_means_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "hpcc.toml") == Settings()


def test_a_config_file_sets_what_it_names() -> None:
    settings = parse_settings(
        '[cache]\nmax_size_bytes = 1000\n[remote]\nfallback = "never"\ntimeout_seconds = 5\n'
    )
    assert settings.cache.max_size_bytes == 1000
    assert settings.remote.fallback == "never"
    assert settings.remote.timeout_seconds == 5.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[cahce]\n", "did you mean 'cache'"),
        ("[cache]\nmax_size = 1\n", "did you mean 'max_size_bytes'"),
        ("[cache]\nmax_size_bytes = -1\n", "positive"),
        ("[cache]\nmax_size_bytes = '5G'\n", "positive int"),
        ("[remote]\nfallback = 'maybe'\n", "never, warn, quiet"),
        ("[remote]\nis_enabled = 1\n", "true or false"),
        ("[worker]\nruntime = 'docker'\n", "auto, qemu, firecracker, process"),
        ("[worker]\ncontainerd = 'run/c.sock'\n", "absolute path"),
        ("[worker]\nguest_reuse = 'everybody'\n", "exec, principal, tenant"),
        ("[worker]\nidle_seconds = 0\n", "positive float"),
        ("[worker]\nahead_guests = -1\n", "positive int"),
        ("[worker]\nahead_guests = 1025\n", "at most 1024"),
        ("[worker]\npark_after_starts = -1.0\n", "positive float"),
        ("[worker]\npark_seconds = 0\n", "positive float"),
        ("cache = 1\n", "table"),
        ("[cache\n", "line 1"),
        ("[cache]\nmax_size_bytes = " + "9" * 5_000, "too many digits"),
        ("[cache]\nmax_size_bytes = 0x" + "f" * 20, "below 2**63"),
        ("[remote]\ntimeout_seconds = 1" + "0" * 400, "below 2**63"),
        ("[remote]\ntimeout_seconds = nan", "below 2**63"),
        ("[remote]\ntimeout_seconds = inf", "below 2**63"),
        ("a = " + "[" * 5_000, "nested too deep"),
        ('[worker]\ncontainerd = "/run/c\\u0000"', "NUL"),
    ],
)
def test_a_wrong_config_file_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(CallerError) as caught:
        parse_settings(text)
    assert says in str(caught.value)


def test_zero_turns_guests_ahead_and_parking_off() -> None:
    settings = parse_settings("[worker]\nahead_guests = 0\npark_after_starts = 0\n")
    assert (settings.worker.ahead_guests, settings.worker.park_after_starts) == (0, 0.0)


def test_a_huge_config_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "hpcc.toml"
    file.write_bytes(b"#" * (2 << 20))
    with pytest.raises(CallerError, match="larger"):
        load_settings(file)


def test_hpcc_dir_moves_everything_under_one_directory() -> None:
    paths = Paths.from_env({"HPCC_DIR": "/x/y", "HOME": "/h", "XDG_CACHE_HOME": "/c"}, uid=1)
    assert {paths.cache.parent, paths.state.parent, paths.config.parent, paths.run.parent} == {
        Path("/x/y")
    }


def test_xdg_variables_are_followed_and_relative_ones_ignored() -> None:
    paths = Paths.from_env(
        {"HOME": "/h", "XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "rel", "XDG_RUNTIME_DIR": "/r"},
        uid=1,
    )
    assert (paths.cache, paths.state, paths.run) == (
        Path("/c/hpcc"),
        Path("/h/.local/state/hpcc"),
        Path("/r/hpcc"),
    )
    assert Paths.from_env({"HOME": "/h"}, uid=7).run == Path("/tmp/hpcc-7")


@pytest.mark.parametrize("env", [{}, {"HOME": ""}, {"HPCC_DIR": "relative", "HOME": "/h"}])
def test_an_environment_without_a_usable_directory_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(CallerError):
        Paths.from_env(env, uid=1)


def test_a_farm_file_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "farm.json"
    assert load_farm_or_none(file) is None
    file.write_text(FARM.to_json())
    assert load_farm_or_none(file) == FARM


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b"x" * 70_000,
     json.dumps({**asdict(FARM), "pid": "1"}).encode(), json.dumps({**asdict(FARM), "image": "gcc:12"}).encode(),
     json.dumps({**asdict(FARM), "tenant": "../x"}).encode()],
)  # fmt: skip
def test_a_damaged_farm_file_is_refused(raw: bytes) -> None:
    with pytest.raises(CallerError):
        parse_farm(raw)


@given(st.text(max_size=200))
def test_no_text_makes_the_settings_parser_fail_otherwise(text: str) -> None:
    try:
        parse_settings(text)
    except CallerError as error:
        assert error.reason == "config"
