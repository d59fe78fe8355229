"""Renders the chart with Helm's own code, in a separate process (tests/helm/render.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[3]
CHART: Final = ROOT / "deploy/helm/hpcc"
# The oldest that Chart.yaml admits, and the newest whose schemas are here.
_KUBERNETES: Final = ("1.29", "1.37")


def tools(name: str = "helm-4.2.3") -> Path:
    """Return where `tools/bootstrap.sh helm` put a part."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(cache) / "hpcc-tests" / name
    assert (path / "stamp").is_file(), "run tools/bootstrap.sh helm"
    return path


def keda_types() -> Path:
    """Return the module with KEDA's types."""
    return tools("keda-2.16.1") / "cloudcoil/models/keda/v1alpha1.py"


def render(cases: dict[str, Any]) -> dict[str, Any]:
    """Render, lint and check each case; a case that is an object is laid over the last text."""
    wanted = {
        "chart": str(CHART), "kubernetes": _KUBERNETES, "cases": cases, "keda": str(keda_types()),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/helm/render.py")],
        input=json.dumps(wanted),
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": str(tools())},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def value_files() -> dict[str, str]:
    """Return the example values by name, the full ones last."""
    return {f.stem: f.read_text() for f in sorted((CHART / "ci").glob("*.yaml"), reverse=True)}


def of_kind(answer: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a case's objects of one kind, by name."""
    return {o["metadata"]["name"]: o for o in answer["objects"] if o["kind"] == kind}


def pods(answer: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pods of a case by the name of what makes them."""
    for kind in ("Deployment", "StatefulSet", "Job"):
        for name, item in of_kind(answer, kind).items():
            yield name, item["spec"]["template"]["spec"]
