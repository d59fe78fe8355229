"""The report on actions whose executions gave different outputs."""

from __future__ import annotations

import pytest

from hpcc.cli.audit.determinism import DISAGREEMENT, show, show_suspects
from hpcc.ports import AuditRow, SecurityEvent
from hpcc_testkit.farm.audit_rows import row


def executed(action: str, *outputs: tuple[str, str], **changes: object) -> AuditRow:
    values: dict[str, object] = {
        "action_digest": action, "outputs": outputs, "cache_status": "executed", "exit_code": 0,
        "reason": "",
    }  # fmt: skip
    return row(0, **{**values, **changes})


def test_only_outputs_that_differ_between_executions_are_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        executed("same/1", ("a.o", "1/1")),
        executed("same/1", ("a.o", "1/1")),
        executed("odd/1", ("a.o", "1/1"), ("a.d", "2/1"), ("x\n", "3/1")),
        executed("odd/1", ("a.o", "9/1"), ("a.d", "2/1")),
        executed("once/1", ("a.o", "1/1")),
    ]
    show(rows, 20)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["ACTION", "EXECUTIONS", "RESULTS", "OUTPUTS", "THAT", "DIFFER"],
        ["odd/1", "2", "2", "a.o,", "x?"],
    ]
    assert lines[2:] == [
        "2 of 3 actions were executed more than once, 1 of them with different outputs"
    ]


def test_hits_and_failures_are_no_executions(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        executed("a/1", ("a.o", "1/1")),
        executed("a/1", ("a.o", "2/1"), cache_status="hit"),
        executed("a/1", ("a.o", "3/1"), exit_code=1),
        executed("a/1", ("a.o", "4/1"), reason="deadline"),
    ]
    show(rows, 20)
    assert "0 of 1 actions" in capsys.readouterr().out


def test_executions_that_differ_from_two_fresh_ones_are_listed_and_not_blamed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fields = {
        "action": "ab" * 32 + "/1", "row": "cd" * 16, "guest": "g-1\n", "key": "1" * 32,
        "voter": "k-1:" + "ef" * 16, "fresh_rows": "12" * 16 + " " + "34" * 16,
    }  # fmt: skip
    event = SecurityEvent(name=DISAGREEMENT, at=0.0, fields=tuple(fields.items()))
    show_suspects([], 20)
    assert capsys.readouterr().out == ""
    show_suspects([event, event], 1)
    _, text, _, line = capsys.readouterr().out.splitlines()
    assert text.startswith("2 results differ")
    assert "prove nothing" in text
    assert line.split() == [x * 6 for x in ("ab", "cd")] + ["g-1?", "ef" * 6, "12" * 6, "34" * 6]
