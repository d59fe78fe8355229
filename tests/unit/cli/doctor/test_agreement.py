"""`hpcc doctor` and `hpcc status` tell who builds at a farm whose workers share nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.cli.cache.local import agreement_lines
from hpcc.cli.doctor.local import LOCAL_CHECKS
from hpcc.config.farm_session import Agreement, FarmSession, load_farm_session_or_none
from hpcc.config.paths import Paths
from hpcc.core import ClientPolicy


def session(agreement: Agreement) -> FarmSession:
    return FarmSession(
        scheduler="s:1", tenant="acme", image="i@sha256:" + "ab" * 32, expires_at=1.0,
        policy=ClientPolicy(), compilers=None, agreement=agreement,
    )  # fmt: skip


@pytest.mark.parametrize("agreement", ["", "together", "apart"])
async def test_workers_apart_are_told_and_no_trouble(tmp_path: Path, agreement: Agreement) -> None:
    paths = Paths.from_env({"HPCC_DIR": str(tmp_path), "HOME": str(tmp_path)}, uid=1)
    assert (await LOCAL_CHECKS["agreement"](paths)).state == "ok"
    paths.farm_session_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_session_file.write_text(session(agreement).to_json())
    found = await LOCAL_CHECKS["agreement"](paths)
    is_apart = agreement == "apart"
    assert (found.state, len(agreement_lines(paths))) == ("ok", is_apart)
    assert ("clients carry claims" in found.detail) == is_apart


def test_a_session_of_an_older_version_has_no_agreement_and_another_word_is_refused(
    tmp_path: Path,
) -> None:
    file = tmp_path / "s.json"
    text = session("apart").to_json()
    file.write_text(text.replace(' "agreement": "apart",\n', ""))
    loaded = load_farm_session_or_none(file)
    assert loaded is not None
    assert loaded.agreement == ""
    file.write_text(text.replace("apart", "elsewhere"))
    assert load_farm_session_or_none(file) is None
