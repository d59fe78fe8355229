"""The heads that the control store holds of workers' trees, and the histories that were changed."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.tree.head import TreeHead, read_tree_head


@dataclass(frozen=True, slots=True)
class HeldHead:
    """A head with the key that signed it, as the store has it."""

    head: TreeHead
    checkpoint: bytes
    key: bytes

    @classmethod
    def of(cls, worker: str, value: bytes) -> HeldHead:
        """Parse an entry, and check the signature.

        Raises:
            AuditDamagedError: it is not a head of the worker.
        """
        return cls.of_table(worker, _table(value))

    @classmethod
    def of_table(cls, worker: str, table: Any) -> HeldHead:  # noqa: ANN401 - decoded JSON
        """Convert decoded JSON. Raises as `of`."""
        try:
            checkpoint, key = str(table["checkpoint"]).encode(), bytes.fromhex(table["key"])
        except (KeyError, TypeError, ValueError) as error:
            raise AuditDamagedError("the head in the control store has another form") from error
        return cls(read_tree_head(worker, checkpoint, key), checkpoint, key)

    def table(self) -> dict[str, str]:
        """Return it as JSON's types."""
        return {"checkpoint": self.checkpoint.decode(), "key": self.key.hex()}


@dataclass(frozen=True, slots=True)
class ChangedHistory:
    """Why a worker was drained: what it says now does not contain what was held.

    `new` is None if it sent no head, or none that it signed.
    """

    worker: str
    at: float
    why: str
    held: HeldHead
    new: HeldHead | None
    proof: tuple[str, ...] = ()

    @classmethod
    def of(cls, worker: str, value: bytes) -> ChangedHistory:
        """Parse an entry, and check both signatures.

        Raises:
            AuditDamagedError: it is malformed.
        """
        table = _table(value)
        try:
            held = HeldHead.of_table(worker, table["held"])
            new = HeldHead.of_table(worker, table["new"]) if table["new"] is not None else None
            return cls(
                worker, float(table["at"]), str(table["why"]), held, new,
                tuple(str(h) for h in table["proof"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise AuditDamagedError("a changed history in the store has another form") from error

    def table(self) -> dict[str, Any]:
        """Return it as JSON's types."""
        return {
            "at": self.at, "why": self.why, "held": self.held.table(), "proof": list(self.proof),
            "new": self.new.table() if self.new is not None else None, "worker": self.worker,
        }  # fmt: skip


def table_or_empty(value: bytes) -> dict[str, Any]:
    """Return an entry for its words, which a drain does not need."""
    with suppress(AuditDamagedError):
        return _table(value)
    return {}


def _table(value: bytes) -> dict[str, Any]:
    try:
        table = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise AuditDamagedError("an entry of the control store is not JSON") from error
    if not isinstance(table, dict):
        raise AuditDamagedError("an entry of the control store has another form")
    return table
