"""The script that CI's recipes share writes settings that hpcc takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hpcc.cache.signed.opening import check_files
from hpcc.config.remote_cache import place_of
from hpcc.config.settings import load_settings
from hpcc_testkit.cache.machines import signing_key

PAGE = Path(__file__).resolve().parents[3] / "docs/sharing-ci.md"


@pytest.mark.parametrize("mode", ["read", "write"])
def test_the_recipes_script_writes_what_hpcc_takes(tmp_path: Path, mode: str) -> None:
    (script,) = re.findall(
        r"^```sh\n(# ci/hpcc-setup.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    key_file = tmp_path / "key"
    line = signing_key(key_file).key.line
    env = {
        "PATH": "/usr/bin:/bin",
        "HPCC_DIR": str(tmp_path / "hpcc"),
        "HPCC_MODE": mode,
        "HPCC_S3_JSON": '{"access_key_id": "a", "secret_access_key": "b", "session_token": "c"}',
        "HPCC_CACHE_KEY_LINE": line,
        # As a secret's value arrives: the file's content without the last line break.
        "HPCC_SIGNING_KEY": key_file.read_text().rstrip("\n") if mode == "write" else "",
    }
    subprocess.run(["sh", "-c", script], env=env, check=True, cwd=tmp_path)
    remote = load_settings(tmp_path / "hpcc/config/hpcc.toml").cache.remote
    assert (remote.mode, remote.trusted_keys) == (mode, (line,))
    assert place_of(remote) is not None
    check_files(remote)
    assert (tmp_path / "hpcc/config/ci.key").exists() == (mode == "write")
