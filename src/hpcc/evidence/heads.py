"""Heads of workers' trees that workers signed themselves: of a trail, or of what schedulers hold.

A scheduler holds one head of each worker, and lets it only grow. A proof that leads to that head
says that the row was in the trail when the scheduler got it. No maker of evidence can change that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.segments import open_trail_file
from hpcc.audit.tree.head import MAX_CHECKPOINT_BYTES, TreeHead, read_tree_head
from hpcc.audit.tree.history import HEAD_NAME
from hpcc.core import CallerError

# 20,000 workers, each with a head of some hundred bytes, and what waits for an operator.
MAX_HEADS_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class WorkerHead:
    """A head as its worker signed it; `where` says where it was found."""

    head: TreeHead
    checkpoint: bytes
    where: str


@dataclass(frozen=True, slots=True)
class HeldCheckpoint:
    """A head that a scheduler holds, not checked yet. `changed` says why a worker was drained."""

    checkpoint: bytes
    changed: str = ""


def parse_held(data: bytes, what: str) -> dict[str, HeldCheckpoint]:
    """Return by worker what `hpcc scheduler audit-history --json` printed.

    Raises:
        CallerError: it is something else.
    """
    found: dict[str, HeldCheckpoint] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            match json.loads(line):
                case {"worker": str(worker), "why": str(why)}:
                    found[worker] = HeldCheckpoint(b"", why or "changed")
                case {"worker": str(worker), "checkpoint": str(text)} if worker not in found:
                    found[worker] = HeldCheckpoint(text.encode())
                case {"worker": str(_), "checkpoint": str(_)}:
                    raise CallerError(f"{what} has two heads of one worker (line {number})")
                case _:
                    raise _other(what, number)
        except (ValueError, RecursionError) as error:
            raise _other(what, number) from error
    return found


def _other(what: str, number: int) -> CallerError:
    return CallerError(
        f"{what}, line {number}: not what `hpcc scheduler audit-history --json` prints"
    )


def sealed_checkpoint(directory: Path) -> bytes:
    """Return the head that a worker signed at its last seal; empty if there is none."""
    try:
        with open_trail_file(directory / HEAD_NAME) as file:
            return file.read(MAX_CHECKPOINT_BYTES + 1)
    except FileNotFoundError:
        return b""


def heads_of(
    directory: Path, worker: str, key: bytes, sealed: bytes, held: Mapping[str, HeldCheckpoint]
) -> list[WorkerHead]:
    """Return the heads of a worker's tree, the scheduler's first.

    Raises:
        AuditDamagedError: one is not of this worker and key, or its trail was changed.
    """
    found = []
    one = held.get(worker)
    if one is not None and one.changed:
        raise AuditDamagedError(
            f"the trail of worker {worker} is not the one that a scheduler held: {one.changed}."
            " docs/runbook.md has the steps"
        )
    for checkpoint, where in (
        (one.checkpoint if one else b"", "the scheduler's head"),
        (sealed, str(directory / HEAD_NAME)),
    ):
        if checkpoint:
            try:
                head = read_tree_head(worker, checkpoint, key)
            except AuditDamagedError as error:
                raise AuditDamagedError(f"{where} of worker {worker}: {error}") from error
            found.append(WorkerHead(head, checkpoint, where))
    if len({one.head.first for one in found}) > 1:
        raise AuditDamagedError(f"the heads of worker {worker} are of different trees")
    return found
