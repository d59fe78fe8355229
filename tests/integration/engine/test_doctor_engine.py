"""`hpcc doctor --worker FILE` asks a bot's engine, and changes nothing there."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest

from hpcc.cli.doctor.check import DoctorCheck
from hpcc.cli.doctor.engine import engine_checks
from hpcc_testkit.engine.bots import bot_config
from hpcc_testkit.engine.scripted import ScriptedEngine
from hpcc_testkit.farm.in_process import IMAGE

pytestmark = pytest.mark.timeout(60)


async def asked(directory: Path, endpoint: str, **section: object) -> dict[str, DoctorCheck]:
    config = bot_config(directory, endpoint, **section)
    names = ("keys", "store", "audit", "images", "guest_assets", "state")
    file = directory / "worker.json"
    file.touch(0o600)
    values: dict[str, object] = {name: str(getattr(config, name)) for name in names}
    values |= {"worker_id": "w1", "image_digests": [IMAGE.digest.value], "engine": config.engine}
    file.write_text(json.dumps(values))
    return {check.name: check for check in await engine_checks(file)}


async def test_an_engine_that_serves_this_bot(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.instance = "main"
    checks = await asked(tmp_path, engine.endpoint)
    assert checks["engine"].state == "ok", checks
    assert "instance 'main'" in checks["engine"].detail
    assert checks["engine's CAS"].state == "ok"
    # The image is not prepared in this directory, and the line names the command that does it.
    assert checks["platform"].state == "missing"
    assert checks["platform"].remedy == f"hpcc image pull {IMAGE}"
    assert engine.created == []
    # The worker's user could not open a lock file that root has made.
    assert list(tmp_path.rglob("*.use")) == []  # noqa: ASYNC240 - a test


async def test_an_engine_without_this_instance(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.instance = "main"
    checks = await asked(tmp_path, engine.endpoint, instance="other")
    assert checks["engine"].state == "missing"
    assert "does not serve instance 'other'" in checks["engine"].detail
    assert "look at instance" in checks["engine"].remedy


async def test_an_engine_that_refuses_the_bot(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.refuses = engine.cas_refuses = grpc.StatusCode.UNAUTHENTICATED
    checks = await asked(tmp_path, engine.endpoint)
    for name in ("engine", "engine's CAS"):
        assert checks[name].state == "missing"
        assert "refuses this bot" in checks[name].detail
        assert "credentials" in checks[name].remedy


async def test_an_engine_that_is_away(tmp_path: Path) -> None:
    checks = await asked(tmp_path, "grpc://127.0.0.1:1")
    for name in ("engine", "engine's CAS"):
        assert checks[name].state == "missing"
        assert "does not answer" in checks[name].detail
        assert checks[name].cost


async def test_a_file_that_is_wrong_or_of_a_farm(tmp_path: Path, engine: ScriptedEngine) -> None:
    checks = await asked(tmp_path, engine.endpoint, credentials=str(tmp_path / "absent"))
    assert "absent" in checks["engine"].detail
    (tmp_path / "worker.json").write_text("{}")
    (check,) = await engine_checks(tmp_path / "worker.json")
    assert (check.name, check.state) == ("worker", "missing")
