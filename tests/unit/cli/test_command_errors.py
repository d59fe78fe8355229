"""Error messages for mistakes at the command line or in a service's config file."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc.cli import main as root
from hpcc.cli.main import main
from hpcc.config.private_file import make_private_directory
from hpcc.config.service_file import load_service_file, parse_service_file
from hpcc.core import CallerError, InfrastructureError, check_port
from hpcc.gateway.config import GatewayConfig
from hpcc.scheduler.base.config import SchedulerConfig


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path / "h"))
    (tmp_path / "h/config").mkdir(parents=True)
    return tmp_path / "h"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("stat", "did you mean `hpcc stats`?"),
        ("tcc", "'tcc' is neither a command nor a program on PATH; `hpcc --help` lists"),
        ("cl\udcff", r"'cl\udcff' is neither a command nor a program"),
    ],
)
def test_a_word_that_is_no_command_is_answered_in_one_line(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "-c", "x.c"]) == 2
    answer = capsys.readouterr().err
    assert said in answer
    assert answer.count("\n") == 1


def test_a_command_that_windows_lacks_is_answered_with_what_helps_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    everywhere = _names(root.build_parser().format_help())
    monkeypatch.setattr(root, "_COMMANDS", root._ON_WINDOWS)
    there = _names(root.build_parser().format_help())
    assert everywhere - there == root._NOT_ON_WINDOWS.keys()
    for word in sorted(everywhere - there):
        assert main([word, "x.c"]) == 2
        answer = capsys.readouterr().err
        assert answer.startswith(f"hpcc: `hpcc {word}` does not exist on Windows yet: ")
        assert answer.count("\n") == 1
        named = set(re.findall(r"`hpcc ([a-z-]+)[^`]*`", answer)) - {word}
        assert named <= there
    assert main(["stat"]) == 2
    assert "did you mean `hpcc stats`?" in capsys.readouterr().err


def _names(shown: str) -> set[str]:
    """Return the commands in the text of `--help`."""
    return set(re.findall(r"^    ([a-z][a-z-]*)\b", shown, re.MULTILINE))


def test_a_terminal_without_our_letters_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    sys.stdout.flush()
    assert not ended.value.code
    assert rb"PROGRAM args\u2026" in raw.getvalue()


@pytest.mark.parametrize("command", [["up"], ["status"], ["stats"], ["clean"]])
def test_broken_settings_are_named_by_every_command_that_needs_them(
    command: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "config/hpcc.toml").write_text("[cache]\nmaxsize = 1\n")
    assert main(command) == 2
    assert "hpcc.toml: unknown key in [cache]: 'maxsize'; did you mean" in capsys.readouterr().err


def test_the_doctor_says_that_broken_settings_end_the_local_cache(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hpcc.runtime.channel.warden.warden_trouble", lambda _: "")
    (home / "config/hpcc.toml").write_text("[cache]\nmaxsize = 1\n")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "local cache:  does not work (settings" in text
    assert text.count("maxsize") == 1


def test_a_place_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HPCC_DIR", str(tmp_path / "file/h"))
    assert main(["up"]) == 2
    assert f"cannot read {tmp_path}/file/h/config/hpcc.toml" in capsys.readouterr().err
    with pytest.raises(InfrastructureError, match=r"cannot make the directory .* Not a directory"):
        make_private_directory(tmp_path / "file/h")


def service_file(directory: Path, text: str) -> Path:
    path = directory / "s.json"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"keys": "/k",\n "secret": hunter2}', "is not JSON (line 2, column 12)"),
        ('{"keys": "/k", "worker_prot": 1}', "unknown key 'worker_prot'; did you mean 'worker_p"),
        ('{"keys": "/k\\u0000"}', "keys: must be an absolute path"),
        ('{"keys": "/k\\ud800"}', "keys: must be an absolute path"),
    ],
)
def test_a_config_file_that_is_wrong_is_told_by_its_place(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(CallerError) as caught:
        load_service_file(service_file(tmp_path, text), SchedulerConfig)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


@dataclass
class Patience:
    seconds: float


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400])
def test_a_number_that_is_no_time_is_refused(number: str) -> None:
    with pytest.raises(CallerError, match=r"s\.json: seconds: must be a number below"):
        parse_service_file(f'{{"seconds": {number}}}'.encode(), Patience, source="s.json")


def test_a_hostile_name_in_an_error_does_not_control_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    name = {"org.opencontainers.image.ref.name": "x\x1b]0;title\x07\u202e"}
    pointer = {"digest": f"sha256:{'a' * 64}", "size": 1, "annotations": name}
    index = {"schemaVersion": 2, "manifests": [pointer]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert main(["image", "import", str(tmp_path), "--ref", "y"]) != 0
    answer = capsys.readouterr().err
    assert r"it has: x\x1b]0;title\x07\u202e" in answer
    assert all(c.isprintable() or c == "\n" for c in answer)


def test_a_config_file_that_is_a_link_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "l.json").symlink_to(service_file(tmp_path, "{}"))
    with pytest.raises(CallerError, match="is a symbolic link: name the file itself"):
        load_service_file(tmp_path / "l.json", SchedulerConfig)


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(CallerError, match="port must be 0 to 65535"):
        check_port("port", port)
    with pytest.raises(CallerError, match="port must be 0 to 65535"):
        GatewayConfig(
            scheduler="s:1", scheduler_certificate_pem="", certificate=Path("/c"), key=Path("/k"),
            port=port,
        )  # fmt: skip


def test_one_port_for_people_and_workers_is_refused() -> None:
    with pytest.raises(CallerError, match="port and worker_port must differ"):
        SchedulerConfig(
            keys=Path("/k"), state=Path("/s"), tenants="/t", port=7443, worker_port=7443
        )


@pytest.mark.parametrize("action", [["workers"], ["anchors"], ["result-keys"], ["rotate-key"]])
def test_a_command_does_not_wait_for_a_database_that_is_down(
    action: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("password", "seal"):
        (tmp_path / name).write_text("0" * 64)
        (tmp_path / name).chmod(0o600)
    config = {
        "keys": str(tmp_path / "keys"),
        "tenants": "/t",
        # Nobody listens at port 1.
        "database": "postgresql://u@127.0.0.1:1/x",
        "database_password_file": str(tmp_path / "password"),
        "sealing_key": str(tmp_path / "seal"),
    }
    path = service_file(tmp_path, json.dumps(config))
    assert main(["scheduler", *action, "--config", str(path)]) == 1
    assert "database 'x' at 127.0.0.1:1 does not answer" in capsys.readouterr().err
