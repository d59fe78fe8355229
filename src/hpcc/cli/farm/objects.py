"""`hpcc farm object`: what made a result of the farm, and what is proved of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import Digest

if TYPE_CHECKING:
    from hpcc.cli.base.farm_object import FarmObject

FORMAT = 1


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action of this module to `hpcc farm`."""
    parser = actions.add_parser(
        "object", help="show what made a result, and what is proved of it", description=_run.__doc__
    )
    parser.add_argument(
        "action", metavar="HASH/SIZE", help="the action's digest, as its audit row has it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(handler=_run)


def _run(args: argparse.Namespace) -> int:
    """Find the farm's result of an action that may serve you, and check it now.

    The exit status is 0 if all that can be checked from here holds, and 1 if something fails or the
    signature was not seen.
    """
    found = asyncio.run(_asked(Digest.parse(args.action)))
    if args.json:
        emit(json.dumps(document_of(found), indent=1, sort_keys=True))
    else:
        for line in lines_of(found):
            emit(line)
    return int(not found.is_good)


async def _asked(action: Digest) -> FarmObject:
    from hpcc.cli.base.farm_object import FarmObjects
    from hpcc.ports import SystemClock

    async with FarmObjects(Paths.from_env(os.environ), SystemClock()) as objects:
        return await objects.object(action)


def document_of(found: FarmObject) -> dict[str, Any]:
    """Return the object as JSON has it."""
    record = found.record
    return {
        "format": FORMAT,
        "action": str(found.action),
        "tenant": found.tenant,
        "asked_worker": found.asked,
        "class": found.sharing,
        "audit_row": found.row or None,
        "worker": record.worker,
        "guest": record.guest_id,
        "guest_executions_before": record.guest_execs_before,
        "isolation": record.isolation.value,
        "guest_reuse": record.reuse.value,
        "image": record.image,
        "kernel": record.kernel_digest,
        "agent": record.agent_digest,
        "lineage": record.lineage_digest,
        "queued_at": record.queued_at,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
        "signed_at": record.signature.signed_at_ms / 1000 if record.signature is not None else None,
        "exit_code": record.exit_code,
        "signed_by": record.signature.key_id if record.signature is not None else None,
        "input_root": str(found.spec.input_root) if found.spec is not None else None,
        "command": list(found.command.argv) if found.command is not None else None,
        "outputs": [{"path": o.path, "digest": str(o.digest)} for o in record.outputs],
        "checks": [
            {"name": c.name, "state": c.state.value, "text": c.text, "detail": c.detail}
            for c in found.checks
        ],
    }


def lines_of(found: FarmObject) -> list[str]:
    """Return the object for a terminal."""
    from hpcc.cli.base.columns import columns
    from hpcc.cli.base.farm_object import commands_of
    from hpcc.obs.text import one_line

    record = found.record
    lines = [
        f"action {found.action} of {found.tenant}",
        one_line(f"  made in guest {record.guest_id} of worker {record.worker}; {found.sharing}"),
    ]
    lines += [one_line(f"  {o.path}  sha256:{o.digest.hash}") for o in record.outputs]
    rows = [(c.state.value, c.name, one_line(c.text), one_line(c.detail)) for c in found.checks]
    lines += ["", *columns([("check", "of", "what", "looked at"), *rows]), ""]
    lines.append(one_line(f"on the machine of worker {record.worker}:"))
    return [*lines, *(f"  {one_line(command)}" for command, _ in commands_of(found))]
