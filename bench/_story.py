"""Says from audit rows why a compile did not hit, and how often each action was executed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Execution:
    """An action that guests executed, with the person of each execution, in their order."""

    action: str
    people: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a compile with this first output was executed instead of served."""

    output: str
    why: str


def executions(rows: Sequence[Row]) -> list[Execution]:
    """Return each executed action; an execution that gave no result counts, too."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["cache_status"] in ("executed", "abandoned", "verify"):
            found.setdefault(str(row["action_digest"]), []).append(str(row["principal"]))
    return [Execution(action, tuple(people)) for action, people in found.items()]


def reasons(rows: Sequence[Row], person: str) -> list[Reason]:
    """Return why each execution for a person did not hit, from what others executed before it."""
    found = []
    for number, row in enumerate(rows):
        if row["principal"] == person and row["cache_status"] in ("executed", "abandoned"):
            before = [r for r in rows[:number] if r["principal"] != person]
            found.append(Reason(_object(row), _why(row, before)))
    return found


def _object(row: Row) -> str:
    """Return the name of a row's object, or what the command calls it if there is none."""
    made = [str(name) for name, _ in row["outputs"]]
    argv = [str(word) for word in row["argv"]]
    wanted = [b for a, b in pairwise(argv) if a == "-o"] + argv[-1:]
    return next((name for name in made if name.endswith(".o")), [*made, *wanted, "?"][0])


def _why(row: Row, before: Sequence[Row]) -> str:
    if row["cache_status"] == "abandoned":
        return f"its execution gave no result ({row['reason']})"
    if row["exit_code"]:
        return "the compile failed in the guest"
    made = [r for r in before if r["cache_status"] == "executed"]
    if same := [r for r in made if r["action_digest"] == row["action_digest"]]:
        if any(r["outputs"] != row["outputs"] for r in same):
            return "executions of the same action gave different outputs"
        if any(r["sharing"] for r in same):
            return "a result that serves everybody was there and was not served"
        voters = len({r["principal"] for r in same})
        return f"only private results of {voters} voter{'s' * (voters > 1)} were there"
    names = _names(row)
    if not (alike := [r for r in made if _names(r) == names]):
        return "nobody else had sent it"
    differing = {
        what
        for field, what in (
            ("argv_digest", "the command"), ("env_digest", "the environment"),
            ("input_root_digest", "an input"), ("image_digest", "the image"),
            ("working_directory", "the directory"),
        )
        if all(r[field] != row[field] for r in alike)
    }  # fmt: skip
    return f"another action: {' and '.join(sorted(differing)) or 'a part without a name'} differs"


def _names(row: Row) -> tuple[str, ...]:
    return tuple(str(name) for name, _ in row["outputs"])


def summed(counts: Mapping[str, int]) -> str:
    """Return counts as "3 (link 2, stdin 1)"."""
    if not counts:
        return "0"
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return f"{sum(counts.values())} ({', '.join(f'{name} {n}' for name, n in ordered)})"
