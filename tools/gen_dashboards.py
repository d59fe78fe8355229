"""Writes deploy/monitoring/grafana/*.json from dashboards.toml.   gen_dashboards.py [--check]"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = "deploy/monitoring/dashboards.toml"
FOLDER: Final = "deploy/monitoring/grafana"
# Each file: its title, the metric whose instances one may choose, and tables of panels.
DASHBOARDS: Final = {
    "fleet": ("hpcc / fleet", "", ("fleet",)),
    "worker": ("hpcc / worker", "hpcc_worker_slots", ("worker", "service")),
    "scheduler": ("hpcc / scheduler", "hpcc_scheduler_workers", ("scheduler", "service")),
    "gateway": ("hpcc / gateway", "hpcc_gateway_calls_total", ("gateway", "service")),
    "client": ("hpcc / client", "hpcc_client_compiles_total", ("client",)),
    "store": ("hpcc / store", "hpcc_worker_slots", ("store",)),
}
# What the variables select. "All" is `.*`, which a series without the label matches, too.
_SHORT: Final = {
    "@farm": 'farm=~"$farm"',
    "@here": 'farm=~"$farm",instance=~"$instance"',
    "@rate": "[$__rate_interval]",
}
# The version of Grafana's format that 10 and later read.
_SCHEMA: Final = 39
_COLUMNS: Final = 24
_SOURCE_OF_DATA: Final = {"type": "prometheus", "uid": "${datasource}"}


def main(argv: list[str]) -> int:
    """Write the files, or with `--check` compare them."""
    folder, is_wrong = ROOT / FOLDER, False
    tables = tomllib.loads((ROOT / SOURCE).read_text())
    texts = {folder / f"{name}.json": text_of(name, tables) for name in DASHBOARDS}
    if argv != ["--check"]:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text)
        return 0
    for path in sorted({*texts, *folder.glob("*")}):
        if path not in texts or not path.exists() or path.read_text() != texts[path]:
            sys.stderr.write(f"{path.relative_to(ROOT)} is out of date: run `make gen`\n")
            is_wrong = True
    return int(is_wrong)


def text_of(name: str, tables: dict[str, list[dict[str, Any]]]) -> str:
    """Return a dashboard as Grafana imports it."""
    title, instances_of, parts = DASHBOARDS[name]
    link = {
        "type": "dashboards", "tags": ["hpcc"], "title": "hpcc", "asDropdown": True,
        "includeVars": True, "keepTime": True,
    }  # fmt: skip
    content = {
        "uid": f"hpcc-{name}",
        "title": title,
        "tags": ["hpcc"],
        "schemaVersion": _SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables(instances_of))},
        "links": [link],
        "panels": list(_panels(panel for part in parts for panel in tables[part])),
    }
    return json.dumps(content, indent=1) + "\n"


def _variables(instances_of: str) -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    yield _variable("farm", "label_values(hpcc_build_info, farm)")
    if instances_of:
        where = f"{instances_of}{{{_SHORT['@farm']}}}"
        yield _variable("instance", f"label_values({where}, instance)")


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": _SOURCE_OF_DATA,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panels(panels: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    left, top, height = 0, 0, 0
    for number, panel in enumerate(panels, 1):
        is_stat = panel.get("is_stat", False)
        width, tall = (4, 4) if is_stat else (12, 8)
        if left + width > _COLUMNS or (left and tall != height):
            left, top = 0, top + height
        height = tall
        legend = {"legend": {"displayMode": "list", "placement": "bottom"}}
        yield {
            "id": number,
            "type": "stat" if is_stat else "timeseries",
            "title": panel["title"],
            "description": panel["text"],
            "gridPos": {"x": left, "y": top, "w": width, "h": tall},
            "datasource": _SOURCE_OF_DATA,
            "fieldConfig": {
                "defaults": {"unit": panel.get("unit", "short"), "min": 0},
                "overrides": [],
            },
            "options": {"reduceOptions": {"calcs": ["lastNotNull"]}} if is_stat else legend,
            "targets": [_target(at, query) for at, query in enumerate(panel["queries"])],
        }
        left += width


def _target(at: int, query: str) -> dict[str, Any]:
    expression, _, legend = query.partition(" | ")
    for short, text in _SHORT.items():
        expression = expression.replace(short, text)
    return {
        "refId": chr(ord("A") + at),
        "datasource": _SOURCE_OF_DATA,
        "expr": expression,
        "legendFormat": legend,
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
