"""`hpcc audit determinism`: which actions gave different outputs when they were executed again.

A team that shares by agreement wants to know: an action whose outputs differ between guests is
never agreed on, and each person executes it. The trail has the outputs' digests of each
execution, so nothing has to be executed for the report. Where the worker's store still has the
objects, it also names the sections that differ. Two executions that differ can both be honest.
Where two fresh guests gave the same and somebody's guest did not, the worker wrote an event: the
report lists these rows as suspects, and blames nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hpcc.cli.audit.text import printable, table
from hpcc.cli.base.terminal import emit
from hpcc.core.memo import LruMemo

if TYPE_CHECKING:
    from hpcc.cli.audit.differing import HeldOutputs
    from hpcc.ports import AuditRow, SecurityEvent

# Beyond that the actions that were executed least recently are forgotten.
MAX_ACTIONS: Final = 500_000
# How many different results of one action are counted.
_MAX_RESULTS: Final = 16
_ACTION_CHARS: Final = 12
_MAX_NAMED: Final = 3
DISAGREEMENT: Final = "result-disagreement"
# Statuses of rows: for a caller, and again by an idle worker.
EXECUTIONS: Final = ("executed", "verify")

Outputs = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class ActionRuns:
    """The executions of one action: how many, in which guests, with which outputs."""

    executions: int = 0
    guests: set[str] = field(default_factory=set)
    results: list[Outputs] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)

    def add(self, row: AuditRow) -> None:
        """Count an execution."""
        self.executions += 1
        if len(self.guests) < _MAX_RESULTS:
            self.guests.add(row.guest_id)
        if row.outputs not in self.results and len(self.results) < _MAX_RESULTS:
            self.results.append(row.outputs)
        if row.tenant not in self.tenants and len(self.tenants) < _MAX_RESULTS:
            self.tenants.append(row.tenant)

    @property
    def differing(self) -> list[str]:
        """The names of the outputs that are not equal in all results."""
        names = {name for outputs in self.results for name, _ in outputs}
        tables = [dict(outputs) for outputs in self.results]
        return sorted(n for n in names if len({t.get(n) for t in tables}) > 1)

    def digests(self, name: str) -> list[str]:
        """Return the digests that an output has in the results, each once."""
        found = (digest for outputs in self.results for n, digest in outputs if n == name)
        return list(dict.fromkeys(found))


def count_runs(rows: Iterable[AuditRow]) -> dict[str, ActionRuns]:
    """Return the runs of each action that succeeded, by action digest."""
    runs: LruMemo[str, ActionRuns] = LruMemo(MAX_ACTIONS)
    for row in rows:
        if row.cache_status in EXECUTIONS and not row.exit_code and not row.reason:
            found = runs.use(row.action_digest) or ActionRuns()
            found.add(row)
            runs[row.action_digest] = found
    return runs


def show(rows: Iterable[AuditRow], limit: int, held: HeldOutputs | None = None) -> None:
    """Print the report, with at most `limit` actions; with `held` where their outputs differ."""
    runs = count_runs(rows)
    again = {action: r for action, r in runs.items() if r.executions > 1}
    differ = {action: r for action, r in again.items() if len(r.results) > 1}
    if differ:
        most = sorted(differ.items(), key=lambda item: -item[1].executions)[:limit]
        lines = [line for action, r in most for line in _lines(action, r, held)]
        table([("ACTION", "EXECUTIONS", "RESULTS", "OUTPUT", "DIFFERS IN"), *lines])
    emit(
        f"{len(again)} of {len(runs)} actions were executed more than once,"
        f" {len(differ)} of them with different outputs"
    )
    if differ and held is None:
        emit("no object was compared: --config FILE names the worker whose store has them")


def _lines(
    action: str, runs: ActionRuns, held: HeldOutputs | None
) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield a line for each output that differs, and one for those beyond the third."""
    head = action[:_ACTION_CHARS], str(runs.executions), str(len(runs.results))
    for name in runs.differing[:_MAX_NAMED]:
        digests = runs.digests(name)
        if len(digests) == 1:
            where = "absent in some"
        else:
            where = held.where(runs.tenants, digests) if held is not None else "-"
        yield *head, name, where
    if more := len(runs.differing[_MAX_NAMED:]):
        yield *head, f"and {more} more", "-"


def show_suspects(events: Iterable[SecurityEvent], limit: int) -> None:
    """Print which executions differ from two equal fresh ones, at most `limit`; nothing if none."""
    found = [dict(event.fields) for event in events]
    if not found:
        return
    header = ("ACTION", "ROW", "GUEST", "VOTER", "FRESH ROWS")
    lines = [
        (
            _short(fields, "action"),
            _short(fields, "row"),
            printable(fields.get("guest", "")),
            _short({"voter": fields.get("voter", "").rpartition(":")[2]}, "voter"),
            " ".join(printable(r)[:_ACTION_CHARS] for r in fields.get("fresh_rows", "").split()),
        )
        for fields in found[:limit]
    ]
    emit(
        f"\n{len(found)} results differ from what two fresh guests gave. Look at these rows first;"
        " they prove nothing against anybody:"
    )
    table([header, *lines])


def _short(fields: dict[str, str], name: str) -> str:
    return printable(fields.get(name, ""))[:_ACTION_CHARS]
