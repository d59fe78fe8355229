"""systemd itself accepts the units that operators install."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc.obs.health.messages import EXTEND_SECONDS

ROOT = Path(__file__).resolve().parents[2]
_UNITS = ROOT / "deploy/systemd"
_NAMES = ("scheduler", "worker", "gateway", "helper")
_DROP_IN = _UNITS / "hpcc-worker-root.conf"
# docs/security.md: what `systemd-analyze security` counts for each unit.
_SCORES = {
    name: float(score)
    for name, score in re.findall(
        r"^- `hpcc-(\w+)\.service`: (\d\.\d)\.", (ROOT / "docs/security.md").read_text(), re.M
    )
}


def text(name: str) -> str:
    return (_UNITS / f"hpcc-{name}.service").read_text()


def values(content: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", content, re.MULTILINE)


def _analyze(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *argv], capture_output=True, text=True, check=False, timeout=60
    )


def _installed(tmp_path: Path, name: str, content: str) -> str:
    """Install the units that one needs, with another program: its place here does not matter."""
    for socket in _UNITS.glob("*.socket"):
        shutil.copy(socket, tmp_path)
    for other, its in {**{n: text(n) for n in _NAMES}, name: content}.items():
        program = re.sub(r"/opt/hpcc/bin/\w+", "/bin/true", its)
        (tmp_path / f"hpcc-{other}.service").write_text(program)
    return str(tmp_path / f"hpcc-{name}.service")


@pytest.mark.parametrize("name", _NAMES)
def test_systemd_reads_the_unit_without_a_word(tmp_path: Path, name: str) -> None:
    done = _analyze("verify", "--man=no", _installed(tmp_path, name, text(name)))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_reads_the_worker_of_root_without_a_word(tmp_path: Path) -> None:
    unit = _installed(tmp_path, "worker", text("worker"))
    (tmp_path / "hpcc-worker.service.d").mkdir()
    shutil.copy(_DROP_IN, tmp_path / "hpcc-worker.service.d/root.conf")
    done = _analyze("verify", "--man=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_misspelt_protection_is_noticed(tmp_path: Path) -> None:
    content = text("scheduler").replace("ProtectSystem=", "ProtectSytem=")
    done = _analyze("verify", "--man=no", _installed(tmp_path, "scheduler", content))
    assert "ProtectSytem" in done.stderr


def _is_within(tmp_path: Path, name: str, content: str) -> bool:
    """Return whether systemd counts no more for a unit than docs/security.md says."""
    unit, most = _installed(tmp_path, name, content), round(10 * _SCORES[name])
    done = _analyze("security", "--offline=true", f"--threshold={most}", "--no-pager", unit)
    assert "Overall exposure level" in done.stdout, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("name", _NAMES)
def test_each_unit_is_as_closed_as_the_page_says_and_at_most_3(tmp_path: Path, name: str) -> None:
    assert _SCORES[name] <= 3.0
    assert _is_within(tmp_path, name, text(name))


def test_a_worker_of_root_is_as_closed_as_the_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs/security.md").read_text()
    (score,) = re.findall(r"`hpcc-worker-root\.conf` a worker is root and counts (\d\.\d)\.", page)
    unit = _installed(tmp_path, "worker", text("worker"))
    (tmp_path / "hpcc-worker.service.d").mkdir()
    shutil.copy(_DROP_IN, tmp_path / "hpcc-worker.service.d/root.conf")
    most = f"--threshold={round(10 * float(score))}"
    done = _analyze("security", "--offline=true", most, "--no-pager", unit)
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["scheduler", "worker"])
@pytest.mark.parametrize(
    "taken",
    [
        "User=",
        "CapabilityBoundingSet=",
        "SystemCallFilter=",
        "RestrictNamespaces=",
    ],
)
def test_each_large_protection_is_missed_when_it_is_gone(
    tmp_path: Path, name: str, taken: str
) -> None:
    content = re.sub(rf"^{taken}.*\n", "", text(name), flags=re.MULTILINE)
    assert content != text(name)
    assert not _is_within(tmp_path, name, content)


def test_a_worker_has_no_capability_and_its_helper_two() -> None:
    assert values(text("worker"), "CapabilityBoundingSet") == [""]
    assert values(text("worker"), "AmbientCapabilities") == [""]
    assert values(text("helper"), "CapabilityBoundingSet") == ["CAP_SETUID CAP_SETGID"]


def test_the_helper_serves_the_workers_user_and_nobody_else() -> None:
    socket = (_UNITS / "hpcc-helper.socket").read_text()
    (user,) = values(text("worker"), "User")
    (command,) = values(text("helper"), "ExecStart")
    assert command.split()[-1] == user
    assert values(socket, "SocketGroup") == [user]
    assert values(socket, "SocketUser") == ["root"]
    assert values(socket, "SocketMode") == ["0660"]
    (place,) = values(socket, "ListenSequentialPacket")
    assert f"HPCC_HELPER={place}" in values(text("worker"), "Environment")
    # What is in /run/hpcc the worker may exchange.
    assert not place.startswith("/run/hpcc/")


def test_no_unit_may_fill_the_machines_memory() -> None:
    """What a stranger's calls could cost before login ends the service, and not the machine."""
    most = {name: values(text(name), "MemoryMax") for name in _NAMES}
    assert most.pop("worker") == ["90%"]
    for name, (limit,) in most.items():
        assert re.fullmatch(r"[1-4]G|[0-9]{1,3}M", limit), name


@pytest.mark.parametrize("name", ["scheduler", "worker", "gateway"])
def test_each_service_tells_systemd_and_only_its_main_process_may(name: str) -> None:
    assert values(text(name), "Type") == ["notify"]
    assert values(text(name), "NotifyAccess") == ["main"]
    (watchdog,) = values(text(name), "WatchdogSec")
    # Each message of a start or an end asks for so much; they come every five seconds.
    assert 2 * 5 < int(watchdog) <= EXTEND_SECONDS


def test_the_helper_can_be_read_in_ten_minutes() -> None:
    """It has rights of root. An operation is a request that it tells from others."""
    code = [*(ROOT / "src/hpcc/helper").glob("*.py"), ROOT / "src/hpcc/wire/helper.py"]
    texts = [path.read_text() for path in code]
    assert sum(len(text.splitlines()) for text in texts) <= 400
    assert sum(len(re.findall(r"^class \w+Request\b", text, re.M)) for text in texts) == 1


def test_every_capability_of_a_worker_of_root_has_its_reason_beside_it() -> None:
    unit = _DROP_IN.read_text()
    (line,) = values(unit, "CapabilityBoundingSet")
    reasons = " ".join(re.findall(r"^#   ([A-Z_ ]+?)  ", unit, re.MULTILINE)).split()
    assert sorted(reasons) == sorted(c.removeprefix("CAP_") for c in line.split())


def test_the_users_that_the_units_name_are_made() -> None:
    users = set(re.findall(r"^u (\S+)", (_UNITS / "hpcc.sysusers").read_text(), re.MULTILINE))
    assert users == {m for n in _NAMES for m in re.findall(r"^User=(\S+)$", text(n), re.MULTILINE)}


@pytest.mark.parametrize("name", ["scheduler", "worker", "gateway"])
def test_config_files_lie_where_only_their_service_reads(name: str) -> None:
    owner = dict(
        re.findall(
            r"^d (/etc/hpcc/\S+) +0700 (\S+)", (_UNITS / "hpcc.tmpfiles").read_text(), re.MULTILINE
        )
    )
    (config,) = re.findall(r"--config (\S+)", text(name))
    assert [owner[str(Path(config).parent)]] == values(text(name), "User")
