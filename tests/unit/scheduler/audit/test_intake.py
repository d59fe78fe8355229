"""What a hostile worker sends as audit records costs a scheduler little."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence

import pytest

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError, Record
from hpcc.core import InfrastructureError
from hpcc.rpc.scheduler.audit_api import AuditPlace
from hpcc.scheduler.audit import intake


class Sink:
    async def place(self, worker: str) -> AuditPlace:
        raise AssertionError(worker)

    async def append(self, worker: str, records: Sequence[Record]) -> AuditPlace:
        raise AssertionError((worker, records))


async def admit(_certificate: bytes, worker: str) -> str:
    return worker


async def no_heads(_worker: str) -> Sequence[bytes]:
    return ()


@pytest.mark.parametrize(("size", "is_together"), [(2 << 20, False), (1 << 20, True)])
async def test_large_batches_of_hostile_workers_are_decoded_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, size: int, is_together: bool
) -> None:
    """Decoded, 15 MiB of empty lists have 360 MiB."""
    both, met = threading.Barrier(2), []

    def decode(*_: object) -> list[Record]:
        try:
            both.wait(timeout=0.3)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        raise InfrastructureError("enough")

    monkeypatch.setattr(intake, "_checked", decode)
    there = intake.AuditIntake(admit, Sink(), no_heads)
    calls = (there.append_audit(b"", "w1", 0, [b"x" * size]) for _ in range(2))
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in done] == [InfrastructureError] * 2
    assert met == [is_together] * 2


@pytest.mark.parametrize(
    "changes",
    [{"kind": []}, {"kind": {}}, {"sequence": True}, {"format": True}, {"more": 1}, {"body": []}],
)
async def test_a_record_of_a_strange_form_is_refused_as_damaged(changes: dict[str, object]) -> None:
    envelope = {
        "body": {"at": 1.0, "fields": [], "name": "x", "tenant": ""}, "format": 1, "kind": "event",
        "previous": GENESIS, "sequence": 0, "worker": "w1", **changes,
    }  # fmt: skip
    data = json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()
    there = intake.AuditIntake(admit, Sink(), no_heads)
    with pytest.raises(AuditDamagedError):
        await there.append_audit(b"", "w1", 0, [data])
