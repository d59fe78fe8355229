"""The report on actions whose executions gave different outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.cli.audit.determinism import DISAGREEMENT, show, show_suspects
from hpcc.cli.audit.differing import GONE, HeldOutputs
from hpcc.core import Blob, Digest, TenantId
from hpcc.ports import AuditRow, SecurityEvent
from hpcc.store.disk_blobs import blob_path
from hpcc.worker.stores.retained import cas_directory
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
    assert [line.split() for line in lines[:3]] == [
        ["ACTION", "EXECUTIONS", "RESULTS", "OUTPUT", "DIFFERS", "IN"],
        ["odd/1", "2", "2", "a.o", "-"],
        ["odd/1", "2", "2", "x?", "absent", "in", "some"],
    ]
    assert lines[3:] == [
        "2 of 3 actions were executed more than once, 1 of them with different outputs",
        "no object was compared: --config FILE names the worker whose store has them",
    ]


def stored(directory: Path, data: bytes, tenant: str = "acme") -> str:
    """Put an object where a worker's cache has it; return its digest."""
    blob = Blob.of(data)
    path = blob_path(cas_directory(directory, TenantId(tenant)), blob.digest.hash)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(blob.digest)


def test_what_is_compared_is_what_the_store_has(tmp_path: Path) -> None:
    held = HeldOutputs(tmp_path)
    texts = [stored(tmp_path, b"a.o: a.c %d\n" % n) for n in range(6)]
    gone = str(Digest.of(b"evicted"))
    damaged = stored(tmp_path, b"object")
    next(tmp_path.rglob(damaged.partition("/")[0])).write_bytes(b"Object")
    assert held.where(["acme"], texts[:2]) == "bytes from 9 on"
    assert held.where(["acme"], texts) == "bytes from 9 on (4 compared)"
    assert held.where(["acme"], [gone, *texts[:2], damaged]) == "bytes from 9 on (2 compared)"
    for others in ([gone], [damaged], ["no/digest"], []):
        assert held.where(["acme"], [texts[0], *others]) == GONE
    assert held.where(["globex", "../acme"], texts) == GONE
    large = f"{'ab' * 32}/{(16 << 20) + 1}"
    assert held.where(["acme"], [texts[0], large]) == "too large to be compared"


def test_an_output_beyond_the_third_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [
        [(f"{name}.o", stored(tmp_path, f"{name}{n}".encode())) for name in "abcde"]
        for n in range(2)
    ]
    show([executed("odd/1", *found, tenant="acme") for found in outputs], 20, HeldOutputs(tmp_path))
    lines = [line.split()[3:] for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert lines == [[f"{n}.o", "bytes", "from", "1", "on"] for n in "abc"] + [
        ["and", "2", "more", "-"]
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
