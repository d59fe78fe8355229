"""systemd itself accepts the units that operators install."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_UNITS = ROOT / "deploy/systemd"
_NAMES = ("scheduler", "worker", "gateway")
# As `systemd-analyze security` counts, tenfold; what is left is the network, which both need.
_MOST_EXPOSED = 12


def text(name: str) -> str:
    return (_UNITS / f"hpcc-{name}.service").read_text()


def _analyze(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *argv], capture_output=True, text=True, check=False, timeout=60
    )


def _installed(tmp_path: Path, name: str, content: str) -> str:
    """Replace the program's path, because its place on this machine does not matter."""
    unit = tmp_path / f"hpcc-{name}.service"
    unit.write_text(content.replace("/opt/hpcc/bin/hpcc", "/bin/true"))
    return str(unit)


@pytest.mark.parametrize("name", _NAMES)
def test_systemd_reads_the_unit_without_a_word(tmp_path: Path, name: str) -> None:
    done = _analyze("verify", "--man=no", _installed(tmp_path, name, text(name)))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_misspelt_protection_is_noticed(tmp_path: Path) -> None:
    content = text("scheduler").replace("ProtectSystem=", "ProtectSytem=")
    done = _analyze("verify", "--man=no", _installed(tmp_path, "scheduler", content))
    assert "ProtectSytem" in done.stderr


def _exposure(tmp_path: Path, name: str, content: str) -> int:
    unit = _installed(tmp_path, name, content)
    return _analyze(
        "security", "--offline=true", f"--threshold={_MOST_EXPOSED}", "--no-pager", unit
    ).returncode


@pytest.mark.parametrize("name", ["scheduler", "gateway"])
def test_a_service_that_needs_only_the_network_is_given_only_that(
    tmp_path: Path, name: str
) -> None:
    assert _exposure(tmp_path, name, text(name)) == 0


@pytest.mark.parametrize(
    "taken",
    [
        "User=",
        "CapabilityBoundingSet=",
        "SystemCallFilter=",
        "RestrictNamespaces=",
    ],
)
def test_each_large_protection_is_missed_when_it_is_gone(tmp_path: Path, taken: str) -> None:
    content = re.sub(rf"^{taken}.*\n", "", text("scheduler"), flags=re.MULTILINE)
    assert content != text("scheduler")
    assert _exposure(tmp_path, "scheduler", content) != 0


def test_every_capability_of_the_worker_has_its_reason_beside_it() -> None:
    unit = text("worker")
    (line,) = re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.MULTILINE)
    reasons = " ".join(re.findall(r"^#   ([A-Z_ ]+?)  ", unit, re.MULTILINE)).split()
    assert sorted(reasons) == sorted(c.removeprefix("CAP_") for c in line.split())


def test_the_users_that_the_units_name_are_made() -> None:
    users = set(re.findall(r"^u (\S+)", (_UNITS / "hpcc.sysusers").read_text(), re.MULTILINE))
    assert users == {m for n in _NAMES for m in re.findall(r"^User=(\S+)$", text(n), re.MULTILINE)}


@pytest.mark.parametrize("name", _NAMES)
def test_config_files_lie_where_only_their_service_reads(name: str) -> None:
    owner = dict(
        re.findall(
            r"^d (/etc/hpcc/\S+) +0700 (\S+)", (_UNITS / "hpcc.tmpfiles").read_text(), re.MULTILINE
        )
    )
    (config,) = re.findall(r"--config (\S+)", text(name))
    user = re.findall(r"^User=(\S+)$", text(name), re.MULTILINE) or ["root"]
    assert owner[str(Path(config).parent)] == user[0]
