"""`hpcc doctor` names what is missing, what that costs, and the command that fixes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcc.cli.main import main
from hpcc.config.extras import reinstalling


@pytest.fixture(autouse=True)
def _own_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path / "h"))
    monkeypatch.setattr("hpcc.runtime.channel.warden.warden_trouble", lambda _: "")


def fake_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *names: str) -> None:
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in names:
        (directory / name).write_bytes(b"\x7fELF static")
        (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


def checks(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    return {c["name"]: c for c in json.loads(capsys.readouterr().out)}


def test_with_nothing_each_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_tools(monkeypatch, tmp_path)
    assert main(["doctor", "--json"]) == 1
    found = checks(capsys)
    assert found["compilers"]["state"] == "missing"
    assert found["qemu"]["remedy"] == "apt-get install qemu-system-x86"
    assert found["erofs"]["remedy"] == "apt-get install erofs-utils"
    assert found["mmdebstrap"]["state"] == "degraded"
    for check in found.values():
        assert (
            check["state"] == "ok" or (check["cost"] and check["remedy"]) or check["name"] == "kvm"
        ), check


def test_the_local_cache_needs_only_a_compiler_and_the_launcher(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_tools(monkeypatch, tmp_path, "gcc", "hpcc")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "local cache:  works" in text
    assert "guests here:  cannot run" in text
    assert "fix:  apt-get install qemu-system-x86" in text
    assert "ok        remote cache  off: no url in [cache.remote]\n" in text


@pytest.mark.parametrize(
    ("helper", "state", "words"),
    [("", "degraded", "uid 1234"), ("/run/h.socket", "ok", "the helper at /run/h.socket gives")],
)
def test_a_user_with_a_helper_has_separate_uids_for_vmms(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    helper: str,
    state: str,
    words: str,
) -> None:
    fake_tools(monkeypatch, tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1234)
    monkeypatch.setenv("HPCC_HELPER", helper)
    main(["doctor", "--json"])
    found = checks(capsys)["user"]
    assert found["state"] == state
    assert words in found["detail"]


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (b"#!/usr/bin/python3\n", "degraded"),
        (b"\x7fELF /lib64/ld-linux-x86-64.so.2", "degraded"),
        (b"\x7fELF", "ok"),
    ],
)
def test_the_launcher_is_looked_into(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    state: str,
) -> None:
    fake_tools(monkeypatch, tmp_path, "gcc", "hpcc")
    (tmp_path / "bin/hpcc").write_bytes(content)
    main(["doctor", "--json"])
    launcher = checks(capsys)["launcher"]
    assert launcher["state"] == state
    # The command is that of this installation; an index need not have this hpcc.
    assert launcher["remedy"].endswith("" if state == "ok" else reinstalling())


@pytest.mark.parametrize(
    ("trouble", "label", "state", "words"),
    [
        ("", "own-uid", "ok", "a separate uid"),
        ("", "same-uid", "degraded", "warden=same-uid"),
        ("", "shared-uid", "degraded", "warden=shared-uid"),
        ("it ended with status -31", "own-uid", "missing", "status -31"),
    ],
)
def test_the_warden_is_tried_and_named_as_rows_name_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    trouble: str,
    label: str,
    state: str,
    words: str,
) -> None:
    fake_tools(monkeypatch, tmp_path, "gcc")
    monkeypatch.setattr("hpcc.runtime.channel.warden.warden_trouble", lambda _: trouble)
    monkeypatch.setattr("hpcc.runtime.channel.warden_launch.warden_label", lambda: label)
    main(["doctor", "--json"])
    check = checks(capsys)["warden"]
    assert check["state"] == state
    assert words in check["detail"]


def test_firecracker_is_looked_into_and_what_to_do_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_tools(monkeypatch, tmp_path, "gcc")
    main(["doctor", "--json"])
    absent = checks(capsys)["firecracker"]
    assert "not installed" in absent["detail"]
    assert "1.12 or newer" in absent["remedy"]
    for name in ("firecracker", "jailer"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\necho {name.capitalize()} v1.5.0\n")
        (tmp_path / "bin" / name).chmod(0o755)
    main(["doctor", "--json"])
    old = checks(capsys)["firecracker"]
    assert "1.5.0 is too old" in old["detail"]
    assert old["remedy"].startswith("install the official release")


def test_warm_start_says_why_guests_would_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_tools(monkeypatch, tmp_path, "gcc")

    def asked() -> dict[str, str]:
        main(["doctor", "--json"])
        return checks(capsys)["warm start"]

    qemu = tmp_path / "bin/qemu-system-x86_64"
    qemu.write_text("#!/bin/sh\necho QEMU emulator version 7.2.9\n")
    qemu.chmod(0o755)
    assert asked()["state"] == "degraded"
    assert "8.2 or newer" in asked()["remedy"]
    qemu.write_text("#!/bin/sh\necho QEMU emulator version 8.2.0\n")
    assert asked()["state"] == "ok"
    config = tmp_path / "h/config/hpcc.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[worker]\nwarm_start = false\n")
    assert asked()["detail"] == "switched off"
    assert asked()["remedy"] == "worker.warm_start = true"


def test_a_bundle_that_is_not_here_is_missing_and_has_no_substitute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_tools(monkeypatch, tmp_path, "gcc")
    name = "sha256:" + "7" * 64
    config = tmp_path / "h/config/hpcc.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[worker]\nguest_bundle = "{name}"\n')
    main(["doctor", "--json"])
    check = checks(capsys)["kernel"]
    assert check["state"] == "missing"
    assert check["remedy"] == f"hpcc assets fetch FILE --digest {name}"
