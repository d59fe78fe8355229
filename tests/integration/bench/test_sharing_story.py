"""The bench of a team's story names why a compile was executed; the story itself takes an hour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.fixture(autouse=True)
def _bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)


def row(principal: str, action: str = "a1", **fields: Any) -> dict[str, Any]:
    return {
        "principal": principal, "action_digest": action, "cache_status": "executed", "sharing": "",
        "outputs": [["src/a.d", "d0"], ["src/a.o", "d1"]], "argv": ["gcc"], "exit_code": 0, "argv_digest": "v", "env_digest": "e", "reason": "",
        "input_root_digest": "i", "image_digest": "m", "working_directory": "src", **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "mine", "why"),
    [
        ([], {}, "nobody else had sent it"),
        ([row("bob")], {}, "nobody else had sent it"),
        ([row("ann")], {}, "only private results of 1 voter were there"),
        ([row("ann"), row("carol")], {}, "only private results of 2 voters were there"),
        (
            [row("ann", sharing="fresh")],
            {},
            "a result that serves everybody was there and was not served",
        ),
        (
            [row("ann", outputs=[["src/a.d", "d0"], ["src/a.o", "d2"]])],
            {},
            "executions of the same action gave different outputs",
        ),
        (
            [row("ann", "a2", input_root_digest="j")],
            {},
            "another action: an input differs",
        ),
        (
            [row("ann", "a2", argv_digest="w", input_root_digest="j"), row("carol", "a3")],
            {},
            "another action: a part without a name differs",
        ),
        (
            [row("ann")],
            {"exit_code": 1, "outputs": [], "argv": ["gcc", "-o", "src/a.o", "a.c"]},
            "the compile failed in the guest",
        ),
        ([row("ann")], {"reason": "guest-lost"}, "its execution gave no result (guest-lost)"),
    ],
)
def test_an_execution_has_its_reason(
    before: list[dict[str, Any]], mine: dict[str, Any], why: str
) -> None:
    from _story import Reason, reasons

    status = "abandoned" if "reason" in mine else "executed"
    rows = [*before, row("bob", cache_status=status, **mine), row("carol", cache_status="hit")]
    assert reasons(rows, "bob")[-1] == Reason("src/a.o", why)
    assert reasons(rows, "dave") == []


def test_executions_are_counted_for_each_action() -> None:
    from _story import Execution, executions, summed

    rows = [
        row("ann"),
        row("bob"),
        row("carol", cache_status="hit"),
        row("ann", "a2", cache_status="abandoned"),
        row("ann", "a2"),
    ]
    assert executions(rows) == [Execution("a1", ("ann", "bob")), Execution("a2", ("ann", "ann"))]
    assert summed({"stdin": 1, "link": 2, "stdout": 1}) == "4 (link 2, stdin 1, stdout 1)"
    assert summed({}) == "0"
