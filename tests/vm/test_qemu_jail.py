"""QEMU's jail on this machine: what it holds, who may have it, and the error where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.core import InfrastructureError
from hpcc.runtime.host.users import VMM_NUMBERS
from hpcc.runtime.qemu.backend import PROGRAM
from hpcc.runtime.qemu.jail import find_jail

pytestmark = [pytest.mark.vm, pytest.mark.timeout(120)]
NOBODY = 65_534
FIND = """
import asyncio, pathlib, sys
from hpcc.runtime.qemu.jail import find_jail
print(asyncio.run(find_jail(sys.argv[1], pathlib.Path(sys.argv[2]))).program)
"""


async def test_this_machines_qemu_runs_in_its_jail(tmp_path: Path) -> None:
    taken = set(VMM_NUMBERS._taken)
    jail = await find_jail(PROGRAM, tmp_path / "guests")
    names = {Path(name).name for name in jail.files}
    assert {PROGRAM, "libc.so.6", "bios-microvm.bin"} <= names
    assert list((tmp_path / "guests").iterdir()) == []
    assert set(VMM_NUMBERS._taken) == taken


async def test_a_worker_that_hides_its_files_has_the_jail(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert await find_jail(PROGRAM, tmp_path / "guests")
    finally:
        os.umask(before)


@pytest.fixture
def others_directory() -> Iterator[Path]:
    """A directory of another user, which it can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a process of another user")
def test_a_user_without_rights_has_the_jail_too(others_directory: Path) -> None:
    words = [FIND, PROGRAM, str(others_directory / "guests")]
    done = subprocess.run(
        [sys.executable, "-B", "-c", *words],
        user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, timeout=60,
        env={**os.environ, "HOME": str(others_directory)}, check=False,
    )  # fmt: skip
    assert Path(done.stdout.strip()).name == PROGRAM, done.stderr


async def test_where_no_namespace_is_allowed_the_text_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho unshare failed: Operation not permitted >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(InfrastructureError, match="Operation not permitted"):
        await find_jail(PROGRAM, tmp_path / "guests")
    assert list((tmp_path / "guests").iterdir()) == []
