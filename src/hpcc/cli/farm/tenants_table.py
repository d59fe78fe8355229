"""`hpcc tenants`: compares a tenants table with the one in the control store, and replaces it."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.operator import operator_name
from hpcc.cli.base.terminal import emit
from hpcc.cli.farm.control import add_config, scheduler_config
from hpcc.core import CallerError, HpccError, IntegrityError
from hpcc.obs.logs import log_to_stderr

if TYPE_CHECKING:
    from hpcc.scheduler.tenants.changes import TableDifference, Tenants
    from hpcc.scheduler.tenants.stored import StoredTable, TableStore

_STORE_SECONDS: Final = 60.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group of this module."""
    tenants = subparsers.add_parser(
        "tenants", help="compare and replace the tenants table in the control store"
    )
    actions = tenants.add_subparsers(title="actions", metavar="ACTION", required=True)
    diff = actions.add_parser(
        "diff", help="show what `apply` would change", description=_diff.__doc__
    )
    apply = actions.add_parser(
        "apply", help="put a table into the control store", description=_apply.__doc__
    )
    show = actions.add_parser(
        "show", help="print the table in the control store", description=_show.__doc__
    )
    for parser in (diff, apply):
        parser.add_argument("file", metavar="FILE", help="the table; - is standard input")
        parser.add_argument(
            "--json", action="store_true", help="print one JSON document instead of lines"
        )
    apply.add_argument(
        "--expect", type=int, metavar="VERSION",
        help="refuse unless this version is in the store, as `diff` has shown it; 0 for none",
    )  # fmt: skip
    apply.add_argument(
        "--allow-removal", action="store_true", help="the table may lack tenants that are there now"
    )
    apply.add_argument("--reason", default="", metavar="TEXT", help="shown to other operators")
    for parser, handler in ((diff, _diff), (apply, _apply), (show, _show)):
        add_config(parser)
        parser.set_defaults(handler=handler)


def _diff(args: argparse.Namespace) -> int:
    """Compare a table with the one in the control store, field by field.

    The exit status is 0 if they mean the same, 1 if not, and 2 if the table cannot be used.
    """
    text, tenants = _read(args.file)
    found = asyncio.run(_compared(args, text, tenants))
    _print(args, found)
    return 1 if found.differs.changes else 0


def _apply(args: argparse.Namespace) -> int:
    """Replace the table in the control store. Schedulers take it over within seconds.

    It is taken as a whole or not at all. Tenants are removed only with --allow-removal: a file
    that lost its end may still be a valid table.
    """
    text, tenants = _read(args.file)
    found = asyncio.run(_applied(args, text, tenants))
    _print(args, found)
    return 0


def _show(args: argparse.Namespace) -> int:
    """Print the text of the table in the control store, as it was applied."""
    table = asyncio.run(_stored(args))
    text = table.text.decode()
    if sys.stdout.isatty():
        for line in text.splitlines():
            emit(line)
    else:
        # Byte for byte, to be applied again.
        sys.stdout.write(text)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What was compared. `version` is the table of the store that counts now; 0 if there is none.

    `trouble` is why the old table could not be read.
    """

    # A sentence about the table that was there.
    before: str
    version: int
    differs: TableDifference
    is_same_text: bool
    is_applied: bool = False
    trouble: str = ""
    note: str = ""


def _read(name: str) -> tuple[bytes, Tenants]:
    from hpcc.scheduler.tenants.table import MAX_TABLE_BYTES, parse_tenants

    try:
        if name == "-":
            text = sys.stdin.buffer.read(MAX_TABLE_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(MAX_TABLE_BYTES + 1)
    except OSError as error:
        raise CallerError(f"cannot read {name}: {error.strerror}", reason="tenants") from error
    try:
        return text, parse_tenants(text, source="standard input" if name == "-" else name)
    except CallerError as error:
        raise CallerError(f"{error} (nothing of the table was taken)", reason="tenants") from error


@asynccontextmanager
async def _opened(args: argparse.Namespace) -> AsyncGenerator[TableStore]:
    from hpcc.ports import SystemClock
    from hpcc.scheduler.base.control_store import open_control
    from hpcc.scheduler.tenants.stored import TableStore

    log_to_stderr(logging.ERROR)
    clock = SystemClock()
    async with (
        asyncio.timeout(_STORE_SECONDS),
        open_control(scheduler_config(args), clock, is_waiting=False) as (store, keys),
    ):
        yield TableStore(store, keys.sealer, clock)


async def _stored(args: argparse.Namespace) -> StoredTable:
    async with _opened(args) as store:
        return await store.read()


async def _compared(args: argparse.Namespace, text: bytes, tenants: Tenants) -> _Found:
    async with _opened(args) as store:
        old, trouble, before = await _old(store)
    return _found(args, old, trouble, before, text, tenants)


async def _applied(args: argparse.Namespace, text: bytes, tenants: Tenants) -> _Found:
    async with _opened(args) as store:
        old, trouble, before = await _old(store)
        found = _found(args, old, trouble, before, text, tenants)
        if args.expect is not None and args.expect != found.version:
            raise CallerError(
                f"table {found.version} is in the control store, and not {args.expect}: look at"
                " `hpcc tenants diff` again",
                reason="tenants-version",
            )
        if (found.differs.removed or trouble) and not args.allow_removal:
            lacks = f"the new table lacks {', '.join(found.differs.removed)}"
            raise CallerError(
                f"{trouble or lacks}. To replace the table nevertheless, repeat the command with"
                " --allow-removal",
                reason="tenants-removed",
            )
        if found.is_same_text:
            return found
        version = await store.replace(text, old, by=operator_name(), reason=args.reason)
        return replace(found, version=version, is_applied=True)


async def _old(store: TableStore) -> tuple[StoredTable | None, str, Tenants]:
    """Return the table in the store, or why it cannot be read; such a one can be replaced."""
    from hpcc.scheduler.tenants.stored import NO_PART, NoTableError
    from hpcc.scheduler.tenants.table import parse_tenants

    head = await store.head_only()
    try:
        old = await store.read()
        return old, "", parse_tenants(old.text, source=old.source)
    except NoTableError:
        return None, "", {}
    except HpccError as error:
        if not isinstance(error, CallerError | IntegrityError) and error.reason != NO_PART:
            raise
        return head, str(error), {}


def _found(
    args: argparse.Namespace,
    old: StoredTable | None,
    trouble: str,
    before: Tenants,
    text: bytes,
    tenants: Tenants,
) -> _Found:
    from hpcc.scheduler.base.config import IN_STORE
    from hpcc.scheduler.tenants.changes import difference

    note = ""
    if (used := scheduler_config(args).tenants) != IN_STORE:
        note = (
            f"note: the scheduler of this config file reads {used or 'a static tenant'}: it uses"
            f' the table of the control store with "tenants": "{IN_STORE}"'
        )
    return _Found(
        before=_described(old) if old is not None else "no table is in the control store",
        version=old.head.version if old is not None else 0,
        differs=difference(before, tenants),
        is_same_text=old is not None and old.text == text,
        trouble=trouble,
        note=note,
    )


def _described(table: StoredTable) -> str:
    head = table.head
    when = datetime.fromtimestamp(head.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    by = f" by {head.by}" if head.by else ""
    return f"table {head.version} was applied {when}{by}{f': {head.reason}' if head.reason else ''}"


def _print(args: argparse.Namespace, found: _Found) -> None:
    differs = found.differs
    if args.json:
        document = {
            "version": found.version, "applied": found.is_applied, "trouble": found.trouble,
            "changes": [asdict(change) for change in differs.changes],
            "added": differs.added, "removed": differs.removed, "changed": differs.changed,
            "logged_out": differs.logged_out,
        }  # fmt: skip
        emit(json.dumps(document, indent=1, sort_keys=True))
        return
    emit(found.before)
    if found.trouble:
        emit(f"it cannot be read, so everything is shown as added: {found.trouble}")
    for change in differs.changes:
        emit(change.text)
    for note in differs.notes:
        emit(f"! {note}")
    if not differs.changes:
        emit("no field differs" + ("" if found.is_same_text else ", only the text does"))
    if found.note:
        emit(found.note)
    if found.is_applied:
        emit(f"table {found.version} is applied: schedulers take it over within seconds")
