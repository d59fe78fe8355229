"""The lock that `hpcc up` takes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from hpcc.cli.base.lock import held_lock, holder_or_none
from hpcc.cli.farm.up import lock_file, run_up
from hpcc.config.farm import Farm
from hpcc.config.paths import Paths
from hpcc.config.private_file import write_private_file
from hpcc.core import CallerError


def test_the_holder_is_known_while_it_holds_and_nobody_afterwards(tmp_path: Path) -> None:
    lock = tmp_path / "up.lock"
    assert holder_or_none(lock) is None
    with held_lock(lock):
        assert holder_or_none(lock) == os.getpid()
        with pytest.raises(CallerError) as caught, held_lock(lock):
            pass
        assert caught.value.reason == "already-up"
    assert holder_or_none(lock) is None


def test_a_stale_pid_in_the_file_is_nobody(tmp_path: Path) -> None:
    lock = tmp_path / "up.lock"
    lock.write_text("1\n")
    assert holder_or_none(lock) is None


def test_nonsense_in_a_held_lock_is_pid_zero(tmp_path: Path) -> None:
    lock = tmp_path / "up.lock"
    with held_lock(lock):
        lock.write_text("nonsense\n")
        assert holder_or_none(lock) == 0


def test_a_lock_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "up.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"), held_lock(tmp_path / "up.lock"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_up_with_another_image_than_the_one_in_force_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))
    paths = Paths.from_env(os.environ)
    paths.state.mkdir(parents=True)
    image = f"example/gcc@sha256:{'a' * 64}"
    farm = Farm(
        scheduler="127.0.0.1:1", scheduler_certificate_pem="", tenant="local", principal="me",
        secret="s" * 43, image=image, isolation="qemu/tcg",
    )  # fmt: skip
    write_private_file(paths.farm_file, farm.to_json().encode())
    with held_lock(lock_file(paths)):
        for same in (None, image, "example/gcc", "a" * 12):
            assert run_up(argparse.Namespace(image=same)) == 0
        assert "already up" in capsys.readouterr().out
        with pytest.raises(CallerError, match="hpcc down"):
            run_up(argparse.Namespace(image="example/other"))
