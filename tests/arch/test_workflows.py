"""Workflows on hosted machines are pinned and have only the rights that they need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_each_path_filter_of_a_workflow_matches_a_file(file: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    for pattern in re.findall(
        r'^ +- "((?:\.github|[a-z_]+)/[^"]+)"$', file.read_text(), re.MULTILINE
    ):
        assert any(root.glob(pattern)), pattern


def test_there_are_workflows() -> None:
    assert WORKFLOWS


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_is_pinned_and_may_only_read(file: Path) -> None:
    text = file.read_text()
    for used in re.findall(r"uses:\s*(.*)", text):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", used), used
    content: Any = YAML(typ="safe").load(text)
    assert content["permissions"] == {}
    assert "pull_request_target" not in content[True if True in content else "on"]
    for job in content["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if "actions/checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
            assert "${{" not in step.get("run", "")
