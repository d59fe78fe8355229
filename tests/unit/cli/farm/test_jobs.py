"""`hpcc jobs` always prints a number. What a farm grants is in `test_several_workers.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcc.cli.farm import jobs
from hpcc.cli.main import main
from hpcc.config.farm import Farm
from hpcc.config.paths import Paths
from hpcc.config.private_file import write_private_file
from hpcc.dispatch.farm import FarmConnection
from hpcc_testkit.farm.connections import connected

PROCESSORS = f"{len(os.sched_getaffinity(0))}\n"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path / "h"))
    monkeypatch.delenv("HPCC_DISABLE", raising=False)
    paths = Paths.from_env(os.environ)
    for file in (paths.farm_file, paths.config_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    return paths


@pytest.fixture
def farm(paths: Paths, tmp_path: Path) -> Farm:
    """Write the file of a farm of which nothing runs."""
    farm = connected(tmp_path)[0].farm
    write_private_file(paths.farm_file, farm.to_json().encode())
    return farm


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main(["jobs"]) == 0
    return capsys.readouterr()


@pytest.mark.usefixtures("paths")
def test_without_a_farm_it_is_the_number_of_processors(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys) == (PROCESSORS, "")


def test_a_damaged_file_or_setting_is_no_reason_to_print_no_number(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    write_private_file(paths.farm_file, b"{")
    assert said(capsys)[0] == PROCESSORS
    paths.config_file.write_text("[[[")
    out, errors = said(capsys)
    assert out == PROCESSORS
    assert errors.startswith("hpcc: the number of this machine's processors: ")


@pytest.mark.usefixtures("farm")
def test_a_farm_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    out, errors = said(capsys)
    assert out == PROCESSORS
    assert errors.startswith("hpcc: the number of this machine's processors: ")


@pytest.mark.usefixtures("farm")
def test_a_farm_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def hang(_: FarmConnection) -> int:
        raise TimeoutError

    monkeypatch.setattr(FarmConnection, "granted", hang)
    assert said(capsys) == (
        PROCESSORS, "hpcc: the number of this machine's processors: no answer in time\n"
    )  # fmt: skip


@pytest.mark.usefixtures("farm")
@pytest.mark.parametrize(("granted", "printed"), [(48, "48\n"), (0, PROCESSORS)])
def test_what_the_farm_grants_is_printed(
    granted: int, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def answer(_: FarmConnection) -> int:
        return granted

    monkeypatch.setattr(FarmConnection, "granted", answer)
    assert said(capsys) == (printed, "")


@pytest.mark.usefixtures("farm")
def test_a_farm_that_no_compile_uses_is_not_asked(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def answer(_: Farm) -> int:
        return 48

    monkeypatch.setattr(jobs, "_granted", answer)
    assert said(capsys) == ("48\n", "")
    monkeypatch.setenv("HPCC_DISABLE", "1")
    assert said(capsys) == (PROCESSORS, "")
    monkeypatch.delenv("HPCC_DISABLE")
    paths.config_file.write_text("[remote]\nis_enabled = false\n")
    assert said(capsys) == (PROCESSORS, "")
