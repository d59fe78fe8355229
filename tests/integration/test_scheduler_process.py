"""The scheduler as a process: its ready line, orderly shutdown, and refused config files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def config(directory: Path, **changes: object) -> Path:
    file = directory / "scheduler.json"
    values = {
        "keys": str(directory / "keys"),
        "state": str(directory / "state"),
        "tenant": "local",
        "tenant_secret": "a" * 43,
        "minimum_isolation": "qemu/tcg",
        **changes,
    }
    file.touch(mode=0o600)
    file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    return file


def start(file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hpcc.scheduler", "--config", str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["sigterm", "sigint", "parent-gone"])
def test_it_is_ready_and_ends_in_order(tmp_path: Path, how: str) -> None:
    with start(config(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        ready = json.loads(process.stdout.readline())
        assert ready["ready"] is True
        assert ready["port"] > 0
        assert "BEGIN CERTIFICATE" in ready["certificate_pem"]
        if how == "parent-gone":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM if how == "sigterm" else signal.SIGINT)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tenant_secret": "short"}, "secrets must have"),
        ({"tenant": "../x"}, "not a tenant id"),
        ({"minimum_isolation": "none"}, "minimum_isolation must be"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"keys": "relative"}, "must be an absolute path"),
        ({"port": "80"}, "must be int"),
        ({"tenant": None}, "'tenant' is missing"),
    ],
)
def test_a_wrong_config_is_said_in_one_line(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with start(config(tmp_path, **changes)) as process:
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 2
    assert said in errors
    assert "Traceback" not in errors


def test_a_config_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = config(tmp_path)
    file.chmod(0o644)
    with start(file) as process:
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 2
    assert "chmod 600" in errors
