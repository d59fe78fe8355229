"""`hpcc token`: which token each caller gets."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

import pytest

from hpcc.cli.main import main
from hpcc.config.farm import Farm
from hpcc.config.private_file import write_private_file

IMAGE = "test/gcc@sha256:" + "ab" * 32
SECRET = "s" * 40


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))
    farm = Farm(
        scheduler="127.0.0.1:1",
        scheduler_certificate_pem="x",
        tenant="acme",
        principal="ann",
        secret=SECRET,
        image=IMAGE,
        isolation="qemu/tcg",
    )
    write_private_file(tmp_path / "state/farm.json", farm.to_json().encode())
    return tmp_path


def test_nobody_logged_in_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))
    assert main(["token"]) == 2
    assert "hpcc login" in capsys.readouterr().err


def test_the_token_is_printed_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del home
    assert main(["token"]) == 0
    assert capsys.readouterr().out == SECRET + "\n"


def test_a_bazelrc_is_for_its_owner_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "hpcc.bazelrc"
    path.write_text("readable by all")
    path.chmod(0o644)
    assert main(["token", "--bazelrc", str(path)]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert f'"--remote_header=authorization=Bearer {SECRET}"' in text
    assert f"hpcc-image={IMAGE}" in text
    assert SECRET not in capsys.readouterr().out


def ask(monkeypatch: pytest.MonkeyPatch, question: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(question))
    return main(["token", "--credential-helper", "gateway.acme.example", "get"])


def test_a_credential_helper_answers_for_its_host(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del home
    uri = "https://gateway.acme.example:7444/build.bazel.remote.execution.v2.Capabilities"
    assert ask(monkeypatch, json.dumps({"uri": uri})) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["headers"] == {"authorization": [f"Bearer {SECRET}"]}
    assert answer["expires"].endswith("Z")


@pytest.mark.parametrize(
    "question",
    [
        json.dumps({"uri": "https://evil.example/"}),
        json.dumps({"uri": "https://gateway.acme.example.evil.example/"}),
        json.dumps({"uri": "https://gateway.acme.example@evil.example/"}),
        json.dumps({"uri": "https://evil.example@gateway.acme.example/"}),
        json.dumps({"uri": "http://gateway.acme.example/"}),
        json.dumps({"uri": "https://[/"}),
        json.dumps({"uri": "https://gateway.acme.example/" + "x" * 5000}),
        json.dumps({"uri": 7}),
        json.dumps([]),
        "[" * 100_000,
        "",
    ],
)
def test_a_helper_that_is_asked_for_another_host_gives_nothing(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    question: str,
) -> None:
    del home
    assert ask(monkeypatch, question) == 2
    assert SECRET not in "".join(capsys.readouterr())
