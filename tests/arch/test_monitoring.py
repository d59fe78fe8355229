"""Rules, dashboards and pages name only metrics and labels that services declare.

tests/integration/operated/test_monitoring.py asks the real Prometheus.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hpcc.audit.metered import WATCHED
from hpcc.cli.main import build_parser
from hpcc_testkit.services.promql import grouping, selectors

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/monitoring"
# What Prometheus itself adds to each series.
TARGET = {"farm", "instance", "job"}
BUILT_IN = {"up": TARGET, "ALERTS": {*TARGET, "alertname", "alertstate"}}
PAGES = ("docs/operate.md", "docs/runbook.md", "deploy/monitoring/README.md")


def _yaml(name: str) -> Any:
    return YAML(typ="safe").load((FOLDER / name).read_text())


RULES = [rule for group in _yaml("hpcc.rules.yml")["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RUNBOOK = (ROOT / "docs/runbook.md").read_text()


def _declared() -> dict[str, set[str]]:
    """Return the labels of each series that exists: docs/metrics.md is generated from the code."""
    found = dict(BUILT_IN)
    page = (ROOT / "docs/metrics.md").read_text()
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", page, re.M):
        known = TARGET | set(re.findall(r"`(\w+)`", labels))
        if kind == "histogram":
            found |= {f"{name}_bucket": known | {"le"}}
            found |= {f"{name}{suffix}": known for suffix in ("_sum", "_count")}
        else:
            found[name] = known
    assert len(found) > 60
    for rule in RULES:
        if "record" in rule:
            # What an aggregation leaves is what it groups by.
            inner = {x for s in selectors(rule["expr"]) for x in found.get(s.metric, ())}
            found[rule["record"]] = set(grouping(rule["expr"])) - {"le"} or inner
    return found


KNOWN = _declared()


def wrong(expression: str, templates: str = "") -> list[str]:
    """Return what an expression and its alert's texts name that does not exist."""
    said, used = [], set[str]()
    for selector in selectors(expression):
        known = KNOWN.get(selector.metric)
        if known is None:
            said.append(selector.metric)
            continue
        said += [f"{selector.metric}: {label}" for label in selector.labels - known]
        used |= known
    labels = {*grouping(expression), *re.findall(r"\$labels\.(\w+)", templates)}
    return said + sorted(labels - used)


def _expressions() -> Iterator[tuple[str, str, str]]:
    for rule in RULES:
        name = rule.get("alert") or rule["record"]
        yield name, rule["expr"], " ".join(rule.get("annotations", {}).values())
    for file in sorted((FOLDER / "grafana").glob("*.json")):
        content = json.loads(file.read_text())
        for panel in content["panels"]:
            for target in panel["targets"]:
                texts = re.sub(r"{{(\w+)}}", r"$labels.\1", target["legendFormat"])
                yield f"{file.stem}: {panel['title']}", target["expr"], texts
        for variable in content["templating"]["list"][1:]:
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found
            yield f"{file.stem}: ${variable['name']}", found[1], f"$labels.{found[2]}"
    histograms = {n.removesuffix("_bucket") for n in KNOWN if n.endswith("_bucket")}
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
        for span in re.findall(r"`([^`\n]*\bhpcc_[a-z]+_[^`\n]*)`", text):
            if span not in histograms:
                yield f"{page}: {span}", span, ""


@pytest.mark.parametrize(
    ("expression", "texts"),
    [(e, t) for _, e, t in _expressions()],
    ids=[name for name, _, _ in _expressions()],
)
def test_each_name_of_an_expression_exists(expression: str, texts: str) -> None:
    assert selectors(expression)
    assert wrong(expression, texts) == []


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ('max(hpcc_scheduler_worker{state="live"})', "hpcc_scheduler_worker"),
        ('hpcc_scheduler_workers{status="live"}', "hpcc_scheduler_workers: status"),
        ("sum by (worker) (rate(hpcc_worker_compiles_total[5m]))", "worker"),
        ("hpcc_worker_compile_seconds > 1", "hpcc_worker_compile_seconds"),
        ("hpcc_worker_slots_bucket offset 5m", "hpcc_worker_slots_bucket"),
        ('farm_outcome:hpcc_worker_compiles:rate5m{a="}"}', "farm_outcome:hpcc_worker_compiles:rate5m"),
        ('instance:hpcc_audit_trail:ratio{tenant="x"}', "instance:hpcc_audit_trail:ratio: tenant"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_noticed(expression: str, named: str) -> None:
    assert wrong(expression) == [named]


def test_an_alerts_text_names_only_labels_that_its_series_have() -> None:
    assert wrong("hpcc_worker_slots == 0", "at {{ $labels.instance }}") == []
    assert wrong("hpcc_worker_slots == 0", "at {{ $labels.worker }}") == ["worker"]


def test_the_dashboards_are_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/gen_dashboards.py"), "--check"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_each_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() -> None:
    assert len(ALERTS) > 15
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.M) == list(ALERTS), "in the order of the rules"
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}
        assert set(rule["annotations"]) == {"summary", "runbook"}
        section = RUNBOOK.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert "**Meaning.**" in section, name
        assert "**Cost.**" in section, name


def test_each_command_of_the_runbook_exists() -> None:
    spans = re.findall(r"`hpcc ([^`]+)`", RUNBOOK)
    assert len(spans) > 10
    for words in sorted(set(spans)):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                args = build_parser().parse_args(words.split())
            except SystemExit:
                pytest.fail(f"hpcc {words}: {said.getvalue()}")
        assert hasattr(args, "handler"), words


def test_each_alert_is_tested_when_it_fires_and_when_it_does_not() -> None:
    tested: dict[str, set[bool]] = {name: set() for name in ALERTS}
    for test in _yaml("hpcc.rules.test.yml")["tests"]:
        for case in test["alert_rule_test"]:
            tested[case["alertname"]].add(bool(case["exp_alerts"]))
    assert {name: seen for name, seen in tested.items() if seen != {True, False}} == {}


def test_the_alert_watches_the_events_whose_counters_begin_at_zero() -> None:
    (names,) = re.findall(r'name=~"([^"]+)"', ALERTS["HpccSecurityEvent"]["expr"])
    assert tuple(names.split("|")) == WATCHED == tuple(sorted(WATCHED))
    page = (ROOT / "docs/spec/audit.md").read_text()
    assert [name for name in WATCHED if f"| `{name}` |" not in page] == []
