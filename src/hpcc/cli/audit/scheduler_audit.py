"""`hpcc scheduler anchors` and `audit-sql`: the operator's commands for the audit trail."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcc.cli.audit import history
from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError, NotFoundError, TenantId

if TYPE_CHECKING:
    from hpcc.ports import SignedHead

_ROLE: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def register(actions: argparse._SubParsersAction[Any]) -> None:
    """Add the actions below `hpcc scheduler`."""
    anchors = actions.add_parser(
        "anchors",
        help="print the signed heads of the workers' audit chains",
        description=_anchors.__doc__,
    )
    # A separate name, so that the default does not overwrite `hpcc scheduler --config FILE`.
    anchors.add_argument(
        "--config",
        dest="control_config",
        type=Path,
        metavar="FILE",
        help="the scheduler's config file",
    )
    anchors.add_argument("--worker", default="", help="only the anchors of this worker")
    anchors.set_defaults(handler=_anchors)
    history.register(actions)
    script = actions.add_parser(
        "audit-sql",
        help="print the SQL that creates the audit tables, roles and rules",
        description=_audit_sql.__doc__,
    )
    script.add_argument(
        "--reader",
        action="append",
        default=[],
        metavar="TENANT=ROLE",
        help="an existing role that may read that tenant's rows; may be repeated",
    )
    script.set_defaults(handler=_audit_sql)


def _anchors(args: argparse.Namespace) -> int:
    """Print the anchors that the control store holds, one line of JSON each, for `audit verify`."""
    from hpcc.audit.base.heads import head_text

    path = args.control_config or getattr(args, "config", None)
    if path is None:
        raise CallerError("--config FILE is missing", reason="usage")
    heads = asyncio.run(_export(Path(path).absolute(), args.worker))
    if not heads:
        raise NotFoundError("no worker has anchored its audit chain here yet")
    for head in heads:
        sys.stdout.write(head_text(head).decode() + "\n")
    return 0


async def _export(config: Path, worker: str) -> list[SignedHead]:
    from hpcc.config.service_file import load_service_file
    from hpcc.ports import SystemClock
    from hpcc.scheduler.audit.book import export_anchors
    from hpcc.scheduler.base.config import SchedulerConfig
    from hpcc.scheduler.base.control_store import open_control

    read = load_service_file(config, SchedulerConfig)
    async with open_control(read, SystemClock(), is_waiting=False) as (store, _):
        return await export_anchors(store, worker)


def _audit_sql(args: argparse.Namespace) -> int:
    """Print a script for psql. The command changes nothing; the script may be run repeatedly."""
    from hpcc.scheduler.audit.schema import AUDIT_SQL

    readers = [_reader(text) for text in args.reader]
    emit(AUDIT_SQL, end="")
    for tenant, role in readers:
        emit(f"GRANT hpcc_audit_reader TO {role};")
        values = f"('{role}', '{tenant}')"  # both consist of harmless characters
        emit("INSERT INTO hpcc_audit.reader VALUES", values, "ON CONFLICT DO NOTHING;")
    return 0


def _reader(text: str) -> tuple[str, str]:
    name, _, role = text.partition("=")
    tenant = TenantId(name)
    if not _ROLE.fullmatch(role):
        raise CallerError(
            f"--reader {text!r}: write TENANT=ROLE; the role consists of a-z, 0-9 and _"
        )
    return tenant.value, role
