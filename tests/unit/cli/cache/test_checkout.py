from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hpcc.cli.cache.checkout import gdb_lines, lldb_line
from hpcc.cli.cache.stats import stats_lines
from hpcc.cli.doctor.local import LOCAL_CHECKS
from hpcc.cli.main import main
from hpcc.config.paths import Paths
from hpcc.core.reasons.private import PrivateReason


def test_debug_map_names_the_root_of_this_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = (tmp_path / "two words").resolve()
    (root / "src").mkdir(parents=True)
    (root / ".hpcc").touch()
    monkeypatch.chdir(root / "src")
    assert main(["debug-map"]) == 0
    out = capsys.readouterr().out
    assert f'set substitute-path /proc/self/cwd "{root}"\n' in out
    assert f'settings set target.source-map /proc/self/cwd "{root}" . "{root}"\n' in out
    assert main(["debug-map", "--gdb", str(root)]) == 0
    assert "settings" not in capsys.readouterr().out
    assert main(["debug-map", "--lldb"]) == 0
    assert "substitute" not in capsys.readouterr().out


@pytest.mark.parametrize("marker", [None, "key = 1\n"])
def test_debug_map_says_why_there_is_no_checkout(
    marker: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if marker is not None:
        (tmp_path / ".hpcc").write_text(marker)
    assert main(["debug-map", str(tmp_path)]) == 1
    expected = "no .hpcc" if marker is None else PrivateReason.MARKER_KEY.text
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x\nshell touch owned #", "x\rshell y", "x\x1b[2J"])
def test_a_directory_whose_name_is_a_command_gives_no_debugger_one(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / ".hpcc").touch()
    assert main(["debug-map", str(tmp_path / name)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize("root", ['/a "b"', "/a\\b", "/plain", "/it's"])
def test_debuggers_read_back_the_root(root: str) -> None:
    assert shlex.split(gdb_lines(root)[0])[-1] == root
    assert shlex.split(lldb_line(root))[-1] == root


async def test_doctor_says_why_a_marker_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = Paths.from_env({"HPCC_DIR": str(tmp_path / "h")})
    assert (await LOCAL_CHECKS["sharing"](paths)).state == "ok"
    (tmp_path / ".hpcc").write_text('name = "my project"\n')
    assert "(my project)" in (await LOCAL_CHECKS["sharing"](paths)).detail
    (tmp_path / ".hpcc").chmod(0o666)
    check = await LOCAL_CHECKS["sharing"](paths)
    assert (check.state, check.is_local) == ("degraded", False)
    assert PrivateReason.MARKER_WRITABLE.text in check.detail
    assert check.remedy == PrivateReason.MARKER_WRITABLE.remedy
    # A marker that is read, in a place that no compile takes as a root.
    odd = tmp_path / 'a"b'
    odd.mkdir()
    (odd / ".hpcc").touch()
    monkeypatch.chdir(odd)
    check = await LOCAL_CHECKS["sharing"](paths)
    assert (check.state, check.remedy) == ("degraded", PrivateReason.ROOT.remedy)


def test_stats_shows_what_came_from_another_checkout_and_what_stayed() -> None:
    counts = {"hit.local": 5, "hit.shared": 3, "private.flags": 2, "private.embeds-path": 1}
    text = "\n".join(stats_lines(counts, 1))
    assert re.search(r"hits +5 ", text)
    assert "3  of these made in another checkout" in text
    assert "not shared with other checkouts" in text
    assert "2  flags: " in text
