from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcc.cli.cache.stats import stats_lines
from hpcc.cli.main import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))
    (tmp_path / "cache").mkdir()
    return tmp_path


def _leave(home: Path, **counts: int) -> None:
    (home / "cache/counters.json").write_text(json.dumps({"since": 1000, **counts}))


def test_stats_work_without_a_daemon(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _leave(home, **{"hit.local": 3, "miss.local": 1, "bypass.link": 2, "fallback.quota": 1})
    assert main(["stats"]) == 0
    text = capsys.readouterr().out
    assert "75.0 % of 4" in text
    assert "2  link" in text
    assert "1  quota" in text


def test_reset_counts_from_now_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _leave(home, **{"hit.local": 3})
    assert main(["stats", "--reset"]) == 0
    _leave(home, **{"hit.local": 5})
    capsys.readouterr()
    assert main(["stats", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["hit.local"] == 2
    assert counts["since"] > 1000


def test_a_store_never_used_is_said_to_be(home: Path) -> None:
    assert "never used" in stats_lines({}, 1)[0]


def test_clean_empties_the_store(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hpcc.store.private import PrivateStore

    store = PrivateStore(
        str(home / "cache/private"),
        max_size_bytes=1 << 20,
        max_entry_bytes=1 << 20,
        now=lambda: 0.0,
    )
    for number in range(4):
        store.put(number.to_bytes(32), bytes(1000))
    assert main(["clean", "--max-size", "2300"]) == 0
    store.rescan()
    assert store.entries == 2
    assert main(["clean"]) == 0
    store.rescan()
    assert store.entries == 0


def test_an_odd_size_is_refused(home: Path) -> None:
    with pytest.raises(SystemExit):
        main(["clean", "--max-size", "lots"])
