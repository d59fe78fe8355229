"""What differs between two tenants tables, field by field. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Final, Literal, cast

from hpcc.core import TenantId
from hpcc.scheduler.tenants.table import ImageRule, TenantPolicy

# None is for a field that the table does not have.
type _Value = str | int | bool | tuple[str, ...] | None
type _Fields = Mapping[str, _Value]
type Tenants = Mapping[TenantId, TenantPolicy]
Kind = Literal["added", "removed", "changed"]
_SIGNS: Final[Mapping[Kind, str]] = {"added": "+", "removed": "-", "changed": "~"}
_ABSENT: Final = "not set"
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field, one item of a list (its path ends in `[]`), or a whole tenant without values.

    `path` is as in the table, values are as in JSON.
    """

    kind: Kind
    path: str
    before: str = ""
    after: str = ""

    @property
    def text(self) -> str:
        """The line for a person."""
        line = f"{_SIGNS[self.kind]} {self.path}"
        if self.kind == "changed":
            return f"{line}: {self.before} -> {self.after}"
        value = self.before or self.after
        return f"{line} = {value}" if value else line


@dataclass(frozen=True, slots=True)
class TableDifference:
    """All changes in the order of paths, and what they do to people."""

    changes: tuple[Change, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    # Tenants whose members log in again, because their `identity` changed.
    logged_out: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """The consequences that a list of fields does not show."""
        gone = [f"members of {name} lose access at once" for name in self.removed]
        again = [f"members of {name} have to log in again" for name in self.logged_out]
        return (*gone, *again)


def difference(before: Tenants, after: Tenants) -> TableDifference:
    """Return what differs. Comments, order and spelling of a table do not count."""
    old, new = {t.value: p for t, p in before.items()}, {t.value: p for t, p in after.items()}
    changes, changed, logged_out = list[Change](), list[str](), list[str]()
    for name in sorted(old.keys() | new.keys()):
        path = f"tenants.{name}"
        if name not in new:
            changes.append(Change(kind="removed", path=path))
            continue
        if name not in old:
            changes.append(Change(kind="added", path=path))
            changes += [
                Change(kind="added", path=f"{path}.{field}", after=_shown(value))
                for field, value in sorted(_fields(new[name]).items())
                if value is not None
            ]
            continue
        found = _changes(path, _fields(old[name]), _fields(new[name]))
        changes += found
        if found:
            changed.append(name)
        if old[name].identity != new[name].identity:
            logged_out.append(name)
    return TableDifference(
        changes=tuple(changes),
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(changed),
        logged_out=tuple(logged_out),
    )


def _changes(path: str, old: _Fields, new: _Fields) -> list[Change]:
    found = list[Change]()
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before != after:
            found += _change(f"{path}.{name}", before, after)
    return found


def _change(path: str, before: _Value, after: _Value) -> list[Change]:
    if isinstance(before, tuple) and isinstance(after, tuple) and set(before) != set(after):
        return [
            Change(kind="removed", path=f"{path}[]", before=_shown(v))
            for v in before if v not in after
        ] + [
            Change(kind="added", path=f"{path}[]", after=_shown(v))
            for v in after if v not in before
        ]  # fmt: skip
    return [Change(kind="changed", path=path, before=_shown(before), after=_shown(after))]


def _fields(policy: TenantPolicy) -> _Fields:
    found = dict[str, _Value]()
    for field in fields(policy):
        if field.name != "tenant":
            _flatten(field.name, getattr(policy, field.name), found)
    return found


def _flatten(path: str, value: object, found: dict[str, _Value]) -> None:
    """Add a value, or each field of a section; an empty section has none."""
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            _flatten(f"{path}.{field.name}", getattr(value, field.name), found)
    elif path == "identity.claims":
        assert isinstance(value, tuple)
        found |= {f"{path}.{_key(name)}": values for name, values in value}
    elif isinstance(value, tuple):
        found[path] = tuple(map(_text, value))
    else:
        # Labels are text in the table.
        found[path] = value.value if isinstance(value, Enum) else cast("_Value", value)


def _key(name: str) -> str:
    """Return a key as TOML has it: any text may be the name of a claim, also line ends."""
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def _text(item: object) -> str:
    if isinstance(item, ImageRule):
        return str(item.digest or item.repositories)
    return str(item)


def _shown(value: _Value) -> str:
    return _ABSENT if value is None else json.dumps(value)
