"""`hpcc stats --format prometheus` has each counter once, in a file that others read whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hpcc.cli.cache.client_metrics import ClientMetrics, client_text
from hpcc.cli.main import main
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.obs.metrics.registry import MAX_SERIES, OTHER
from hpcc_testkit.services.scraped import Scrape

COUNTS = {
    "since": 1000, "hit.local": 7, "hit.shared": 2, "miss.local": 3, "miss.remote.cached": 4,
    "miss.remote.executed": 5, "miss.failed": 1, "bypass.link": 6, "uncacheable.time-macro": 1,
    "missed.evicted": 2, "private.outside-root": 1, "fallback.farm-down": 8,
    "launcher.no-daemon": 1, "remote-cache.found": 3, "remote-cache.refused.bad-signature": 1,
    "remote-cache.pending": 2, "front.requests": 20, "dedup.waited": 1, "store.evicted": 4,
    "store.size_bytes": 5000, "store.entries": 9, "bytes.served": 70, "saved.milliseconds": 1500,
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path / "home"))
    (tmp_path / "home/cache").mkdir(parents=True)
    counts = {n: v for n, v in COUNTS.items() if not n.startswith(("front.", "store.s", "store.e"))}
    (tmp_path / "home/cache/counters.json").write_text(json.dumps(counts))
    return tmp_path


def test_each_counter_is_in_one_metric_with_its_value() -> None:
    found = Scrape(client_text(COUNTS | {"remote-cache.daemon-done": 9}, 1 << 30).encode())
    compiles = "hpcc_client_compiles_total"
    assert found.total(compiles, outcome="hit") == 7
    assert found.value(compiles, outcome="found", source="remote.cached") == 4
    assert found.total(compiles, outcome="miss") == 3 + 5
    assert found.value("hpcc_client_bypasses_total", reason="link") == 6
    assert found.value("hpcc_client_fallbacks_total", reason="farm-down") == 8
    assert found.value("hpcc_client_remote_cache_total", result="found", reason="") == 3
    refused = {"result": "refused", "reason": "bad-signature"}
    assert found.value("hpcc_client_remote_cache_total", **refused) == 1
    assert found.value("hpcc_client_saved_seconds_total") == 1.5
    assert found.value("hpcc_client_remote_cache_pending") == 2
    assert found.families["hpcc_client_remote_cache_pending"].kind == "gauge"
    assert found.value("hpcc_client_store_bytes") == 5000
    assert found.value("hpcc_client_store_limit_bytes") == 1 << 30
    assert found.value("hpcc_client_since_timestamp_seconds") == 1000
    left = {dict(labels)["event"] for labels in found.values("hpcc_client_events_total")}
    assert left == {"hit.shared", "miss.failed", "front.requests", "dedup.waited"}
    whole = sum(
        value
        for name, family in found.families.items()
        if name not in {"hpcc_build_info", "hpcc_client_store_limit_bytes"}
        for value in family.samples.values()
    )
    assert whole == sum(COUNTS.values()) - 1500 + 1.5


def test_counters_without_end_are_few_series_and_each_value_is_one_value() -> None:
    kinds = ("bypass", "uncacheable", "fallback", "missed", "private", "launcher", "remote-cache")
    counts = {f"{kind}.reason-{n}": 1 for kind in (*kinds, "odd") for n in range(2000)}
    counts |= {'bypass."} 1\nhpcc_forged 1': 5, "x" * 1000: 1, "": 1}
    found = Scrape(client_text(counts, 1).encode())
    assert found.series <= MAX_SERIES
    assert found.total("hpcc_client_bypasses_total") == 2005
    assert found.value("hpcc_client_bypasses_total", reason=OTHER) >= 2000 - 256
    assert "\nhpcc_forged" not in found.text
    assert found.total("hpcc_client_events_total") == 2002


@pytest.mark.parametrize("kind", [BypassReason, UncacheableReason, FallbackReason])
def test_all_reasons_have_their_names(kind: type) -> None:
    counts = {f"{kind.prefix}.{reason.value}": 1 for reason in kind}  # type: ignore[attr-defined]  # an enum of reasons
    assert counts
    assert f'"{OTHER}"' not in client_text(counts, 1)


def test_no_label_of_a_series_can_be_given_by_the_user() -> None:
    families = ClientMetrics().registry.families
    from hpcc.cli.cache.client_metrics import _TAKEN

    assert {label for family in families for label in family.labels} == _TAKEN


def test_a_file_is_replaced_whole_and_all_may_read_it(home: Path) -> None:
    file = home / "hpcc.prom"
    file.write_text("old")
    before, umask = file.stat().st_ino, os.umask(0o077)
    try:
        assert main(["stats", "--format", "prometheus", "--output", str(file)]) == 0
    finally:
        os.umask(umask)
    assert file.stat().st_ino != before, "a reader of the old file still has all of it"
    assert file.stat().st_mode & 0o777 == 0o644
    found = Scrape(file.read_bytes())
    assert found.value("hpcc_client_compiles_total", outcome="hit", source="local") == 7
    assert [p.name for p in home.iterdir() if p.name != "home"] == ["hpcc.prom"]


def test_a_link_is_not_followed_and_what_is_no_file_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious, link, pipe = home / "precious", home / "link.prom", home / "pipe"
    precious.write_text("mine")
    link.symlink_to(precious)
    os.mkfifo(pipe)
    odd = "is not a plain file"
    for bad, why in ((link, odd), (pipe, odd), (home, odd), (home / "none/x", "cannot write")):
        assert main(["stats", "--format", "prometheus", "--output", str(bad)]) == 2
        assert why in capsys.readouterr().err
    assert pipe.is_fifo()
    assert precious.read_text() == "mine"


def test_labels_tell_users_of_one_machine_apart(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["stats", "--format", "prometheus", "--label", 'runner=ci "1"', "--label", "site=b"]
    assert main(argv) == 0
    found = Scrape(capsys.readouterr().out.encode())
    for family in found.families.values():
        for _, labels in family.samples:
            assert {("runner", 'ci "1"'), ("site", "b")} <= labels


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (["reason=x"], "taken"),
        (["Runner=x"], "not a label"),
        (["runner="], "not a label"),
        (["runner=\x1b"], "not a label"),
        (["runner=a", "runner=b"], "each name once"),
        ([f"l{n}=x" for n in range(9)], "at most 8"),
    ],
)
def test_a_label_that_would_break_the_series_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], labels: list[str], why: str
) -> None:
    given = [word for label in labels for word in ("--label", label)]
    try:
        code = main(["stats", "--format", "prometheus", *given])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert why in capsys.readouterr().err


def test_a_reset_takes_nothing_from_the_counters_and_json_is_as_before(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", "--reset"]) == 0
    capsys.readouterr()
    assert main(["stats", "--format", "prometheus"]) == 0
    found = Scrape(capsys.readouterr().out.encode())
    assert found.total("hpcc_client_compiles_total", outcome="hit") == 7
    shown = []
    for form in (["--json"], ["--format", "json"]):
        assert main(["stats", *form]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert shown[0] == shown[1]
    assert "hit.local" not in shown[0]
    assert main(["stats", "--label", "runner=x"]) == 2
