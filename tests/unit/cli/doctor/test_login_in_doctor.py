"""`hpcc doctor` and `hpcc whoami` describe a login without a network call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcc.cli.main import main
from hpcc.config.paths import Paths
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.login.file import FarmProfile, Login, profile_text, save_login
from hpcc_testkit.services.idp_tokens import ISSUER, FixedClock

ALWAYS = 4e9


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Paths:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path / "h"))
    monkeypatch.setattr("hpcc.runtime.channel.warden.warden_trouble", lambda _: "")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Paths.from_env({"HPCC_DIR": str(tmp_path / "h")})


def keep(paths: Paths, **changes: object) -> None:
    made = load_or_create_tls(paths.keys, "scheduler", clock=FixedClock())
    profile = FarmProfile(
        scheduler="farm.acme.example:7443",
        scheduler_certificate=made.certificate_pem.decode(),
        tenant="acme",
        issuer=ISSUER,
        client_id="hpcc-cli",
        image="r.example/gcc@sha256:" + "ab" * 32,
    )
    values: dict[str, object] = {
        "profile": profile_text(profile),
        "method": "device",
        "token": "t",
        "expires_at": ALWAYS,
        "refresh_token": "r",
        "principal": "ann",
        **changes,
    }
    save_login(paths.login_file, Login(**values))  # type: ignore[arg-type]  # built by name just above


def doctor(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    main(["doctor", "--json"])
    found = {c["name"]: c for c in json.loads(capsys.readouterr().out)}
    line: dict[str, str] = found["login"]
    return line


def test_nobody_is_logged_in(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(capsys)["state"] == "ok"
    assert main(["whoami"]) == 1
    assert "hpcc login FILE" in capsys.readouterr().out


def test_somebody_is_logged_in(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    keep(paths)
    line = doctor(capsys)
    assert (line["state"], line["detail"]) == ("ok", "ann of acme at farm.acme.example:7443")
    assert main(["whoami"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("ann of tenant acme\n")
    assert "device code, renewed before it ends" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"ended": "the login has ended: run `hpcc login`", "expires_at": 1.0, "refresh_token": ""},
        {"expires_at": 1.0, "refresh_token": ""},
    ],
)
def test_a_login_that_has_ended_says_what_mends_it(
    paths: Paths, capsys: pytest.CaptureFixture[str], changes: dict[str, object]
) -> None:
    keep(paths, **changes)
    line = doctor(capsys)
    assert (line["state"], line["remedy"]) == ("degraded", "hpcc login")
    assert main(["whoami"]) == 1
    assert "has ended" in capsys.readouterr().out


def test_a_login_file_that_others_can_read_is_said(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(paths)
    paths.login_file.chmod(0o644)
    line = doctor(capsys)
    assert line["state"] == "missing"
    assert "chmod 600" in line["detail"]
    assert main(["whoami"]) == 2


def test_login_without_a_farm_file_says_where_it_comes_from(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["login"]) == 2
    assert "hpcc login FILE" in capsys.readouterr().err
    assert main(["login", str(paths.state / "none.toml")]) == 2


def test_a_tenants_table_is_checked(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "tenants.toml"
    table.write_text(
        '[tenants.acme]\nimages = ["r.example/*"]\nminimum_isolation = "qemu/kvm"\n'
        f'[tenants.acme.identity]\nissuer = "{ISSUER}"\naudience = "hpcc"\n'
        'client_ids = ["hpcc-cli"]\n'
    )
    table.chmod(0o644)
    assert main(["scheduler", "check-tenants", str(table)]) == 0
    said = capsys.readouterr().out
    assert f"tokens:    of {ISSUER} for hpcc" in said
    assert "a pattern checks only the name that a client writes" in said
    table.write_text(table.read_text().replace("issuer", "isuer"))
    assert main(["scheduler", "check-tenants", str(table)]) == 2
    assert "did you mean 'issuer'?" in capsys.readouterr().err
    assert main(["scheduler"]) == 2
