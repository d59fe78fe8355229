"""The git hooks run the same commands as `make check`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
CONFIG: Any = YAML(typ="safe").load((ROOT / ".pre-commit-config.yaml").read_text())
HOOKS: list[dict[str, Any]] = [hook for repo in CONFIG["repos"] for hook in repo["hooks"]]


def static_commands() -> list[str]:
    text = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^static:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert recipe
    assert re.search(r"^check: static\b", text, re.MULTILINE)
    body = recipe[1].replace("\\\n", " ").replace("$(PY)", "$(VENV)/bin/python")
    return [line.strip().replace("$(VENV)", ".venv") for line in body.splitlines()]


def test_hooks_are_local_and_take_nothing_from_the_network() -> None:
    assert [repo["repo"] for repo in CONFIG["repos"]] == ["local"]
    assert {hook["language"] for hook in HOOKS} == {"system"}


def test_a_commit_runs_each_command_of_check_but_the_tests_and_a_push_runs_all() -> None:
    at_commit = [hook["entry"] for hook in HOOKS if "stages" not in hook]
    at_push = [hook["entry"] for hook in HOOKS if hook.get("stages") == ["pre-push"]]
    assert at_commit == static_commands(), (
        "write the commands of `check` in .pre-commit-config.yaml"
    )
    assert at_push == ["make check"]
    assert len(at_commit) + len(at_push) == len(HOOKS)


def test_a_hook_runs_whatever_was_changed() -> None:
    # A commit that only removes a file can break types and layers, too.
    for hook in HOOKS:
        assert (hook["always_run"], hook["pass_filenames"]) == (True, False)
