"""The statement of a build that was made again: which objects came out byte for byte the same.

Problem: who runs a build's actions again should be able to tell others, and they should see which
objects that was not tried for, and why.

Rule: the statement is a test result of in-toto, whose tests are the rows of one worker. Its
subjects are the outputs of the rows that were chosen. Each row has its verdict, the guest that it
ran in then and now, and each of its outputs with the digest that it got now.

Example: of 40 rows 38 were reproduced, the inputs of one have expired, and one object differs. The
result is `FAILED`. The two rows are named with the reason.

What must never happen: an object counts as made again whose digest was not compared, or the result
is `PASSED` while a chosen row was not run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.audit.base.canonical import Record, row_of
from hpcc.evidence.statement import SITE, STATEMENT, named, text_of
from hpcc.ports import AuditRow, GuestIdentity

TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
REPRODUCTION: Final = f"{SITE}/reproduction/v1"
REPRODUCED: Final = "reproduced"
DIFFERENT: Final = "different"
# Verdicts of rows that were not run to an end.
NOT_TRIED: Final = "not-tried"
DAMAGED: Final = "damaged"
_FAILED: Final = frozenset({DIFFERENT, DAMAGED})
_TESTS: Final = {
    REPRODUCED: "passedTests", DIFFERENT: "failedTests", DAMAGED: "failedTests",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedRow:
    """A row that was chosen, and what became of it.

    `made` has the digests of what its action left now, if it ran; `boundary` is the guest that it
    ran in. `findings` and `notes` are pairs of a name and a text.
    """

    record: Record
    verdict: str
    findings: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    made: Mapping[str, str] | None = None
    boundary: GuestIdentity | None = None

    @property
    def row(self) -> AuditRow:
        """Return the row."""
        return row_of(self.record)

    @property
    def same(self) -> tuple[str, ...]:
        """Return the outputs that were made again with the same bytes."""
        made = self.made or {}
        return tuple(path for path, digest in self.row.outputs if made.get(path) == digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedBuild:
    """The rows of a build that were chosen, of `candidates` that could have been.

    `others` counts rows without outputs, or whose action another row has with the same outputs.
    """

    build: str
    rows: tuple[TriedRow, ...]
    candidates: int
    others: int
    at: str

    @property
    def verdicts(self) -> Counter[str]:
        """Return how many rows have each verdict."""
        return Counter(tried.verdict for tried in self.rows)

    @property
    def result(self) -> str:
        """Return the result in in-toto's words."""
        verdicts = set(self.verdicts)
        if verdicts & _FAILED:
            return "FAILED"
        return "PASSED" if verdicts == {REPRODUCED} else "WARNED"


def candidates_of(records: Iterable[Record]) -> tuple[list[Record], int]:
    """Return the rows that stand for each action with its outputs, and how many others there are.

    A row without outputs has no object. Of rows that claim the same of one action the first stays.
    """
    found: dict[tuple[object, ...], Record] = {}
    others = 0
    for record in records:
        row = row_of(record)
        claim = (
            row.tenant, row.action_digest, row.input_root_digest, row.image_digest, row.isolation,
            row.exit_code, row.outputs,
        )  # fmt: skip
        has_object = any("digest" in named(*output) for output in row.outputs)
        if not has_object or row.reason or row.cache_status == "abandoned" or claim in found:
            others += 1
        else:
            found[claim] = record
    return list(found.values()), others


def sample_of(records: Sequence[Record], percent: float) -> list[Record]:
    """Return so many per cent of rows, at least one, in their order.

    The hashes of all rows decide, so that nobody picks the easy ones, and everybody who has the
    rows picks the same.
    """
    seed = hashlib.sha256("".join(record.hash for record in records).encode()).digest()
    count = max(1, round(len(records) * percent / 100)) if records else 0
    order = sorted(
        range(len(records)),
        key=lambda n: hashlib.sha256(seed + bytes.fromhex(records[n].hash)).digest(),
    )
    return [records[n] for n in sorted(order[:count])]


def reproduction_statement(tried: TriedBuild) -> bytes:
    """Return the statement as canonical JSON.

    Raises:
        ValueError: no row was chosen, so it is about nothing.
    """
    if not tried.rows:
        raise ValueError("no row of the build has outputs")
    outputs = dict.fromkeys(output for row in tried.rows for output in row.row.outputs)
    tests: dict[str, list[str]] = {"passedTests": [], "failedTests": [], "warnedTests": []}
    for row in tried.rows:
        tests[_TESTS.get(row.verdict, "warnedTests")].append(row.row.row_id)
    predicate = {
        "result": tried.result,
        "configuration": [{"name": "hpcc-build", "annotations": {"build": tried.build}}],
        **tests,
        REPRODUCTION: {
            "build": tried.build, "candidates": tried.candidates, "chosen": len(tried.rows),
            "finishedOn": tried.at, "others": tried.others, "rows": [_row(t) for t in tried.rows],
        },
    }  # fmt: skip
    subject = [subject for output in outputs if "digest" in (subject := named(*output))]
    return text_of({
        "_type": STATEMENT, "subject": subject,
        "predicateType": TEST_RESULT, "predicate": predicate,
    })  # fmt: skip


def _row(tried: TriedRow) -> dict[str, object]:
    row, made = tried.row, tried.made
    objects = [
        {
            "name": path,
            "then": digest,
            "now": "" if made is None else made.get(path, "absent"),
            "same": path in tried.same,
        }
        for path, digest in row.outputs
    ]
    return {
        "row": row.row_id, "worker": tried.record.worker, "sequence": tried.record.sequence,
        "hash": tried.record.hash, "signed": bool(tried.record.signature),
        "action": row.action_digest, "image": row.image_digest, "verdict": tried.verdict,
        "objects": objects, "findings": _pairs(tried.findings), "notes": _pairs(tried.notes),
        "then": _boundary(row), "now": _boundary(tried.boundary) if tried.boundary else None,
    }  # fmt: skip


def _boundary(of: AuditRow | GuestIdentity) -> dict[str, str]:
    return {
        "isolation": str(of.isolation), "guest": of.guest_id, "kernel": of.kernel_digest,
        "agent": of.agent_digest, "vmm": of.vmm_digest, "vmmVersion": of.vmm_version,
        "jailer": of.jailer_digest, "vmmJail": of.vmm_jail, "warden": of.warden,
        "kernelCommandLine": of.kernel_command_line,
    }  # fmt: skip


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "text": text} for name, text in pairs]
