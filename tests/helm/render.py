"""Renders a chart with Helm's own code; run it in a separate process.

Standard input: `{"chart": DIR, "kubernetes": [VERSION…], "keda": FILE, "cases": {NAME: values}}`.
Values are YAML text, or an object that is merged over the first such text. Standard output: for each case
`{"lint": […], "objects": […], "faults": […]}` or `{"refused": text}`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keda
import kubernetes_validate
import yaml
from helm_python.chart import Chart, lint, values_from_yaml
from helm_python.errors import HelmError


def laid_over(base: Any, top: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(top, dict):
        return top
    return {**base, **{key: laid_over(base.get(key), value) for key, value in top.items()}}


def faults(objects: list[Any], versions: list[str], models: keda.Models) -> list[str]:
    found = []
    for item in objects:
        if item["apiVersion"].startswith("keda.sh/"):
            found += models.faults(item)
    for version in versions:
        for item in objects:
            if item["apiVersion"].startswith(("monitoring.coreos.com/", "keda.sh/")):
                continue  # the Prometheus operator's and KEDA's, which Kubernetes does not have
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = f"{item['kind']}/{item['metadata']['name']} {list(error.path)}"
                found.append(f"{version} {where}: {error.message}")
    return found


def answer(
    chart: Chart, path: str, values: Any, versions: list[str], models: keda.Models
) -> dict[str, Any]:
    try:
        texts = chart.render(values, name="farm", namespace="hpcc")
    except HelmError as error:
        return {"refused": str(error)}
    objects = [o for text in texts.values() for o in yaml.safe_load_all(text) if o]
    report = lint(path, values, strict=True)
    said = [m["error"] for m in report["messages"] if m["severity"] > 1] + report["errors"]
    return {"lint": said, "objects": objects, "faults": faults(objects, versions, models)}


def main() -> None:
    wanted = json.load(sys.stdin)
    base: Any = {}
    models = keda.Models(Path(wanted["keda"]))
    done = {}
    with Chart.load(wanted["chart"]) as chart:
        for name, values in wanted["cases"].items():
            if isinstance(values, str):
                base = whole = values_from_yaml(values)
            else:
                whole = laid_over(base, values)
            done[name] = answer(chart, wanted["chart"], whole, wanted["kubernetes"], models)
    json.dump(done, sys.stdout)


main()
