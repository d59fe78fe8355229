"""`hpcc audit hold` and `retire`: what the retention role keeps in a worker's trail, and allows."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcc.cli.audit.filters import BUILD_HELP, add_command, directory_of, since_seconds, utc_now
from hpcc.cli.audit.text import printable, time_text
from hpcc.cli.base.operator import operator_name
from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import CallerError, InfrastructureError, PolicyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from hpcc.audit.base.retention_statement import RetentionAction
    from hpcc.ports import Clock
    from hpcc.worker.base.retention_file import RetentionAnswer, RetentionFiles

_ANSWER_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.2
_SCOPES: Final = (
    ("tenant", "rows and events of this tenant, also later ones"),
    ("build", BUILD_HELP),
    ("row", "row id, or the start of one"),
)


def register(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the commands below `hpcc audit`."""
    hold = commands.add_parser("hold", help="keep rows of a worker's trail from being removed")
    actions = hold.add_subparsers(title="actions", metavar="ACTION", required=True)

    key = actions.add_parser("key", help="make a person's key, and print its public half")
    key.add_argument("file", type=Path, metavar="FILE", help="the key; keep it off the worker")
    key.set_defaults(handler=_make_key)

    add = actions.add_parser(
        "add", help="let a worker keep rows until the hold is released", description=_add.__doc__
    )
    what = add.add_mutually_exclusive_group(required=True)
    for name, text in _SCOPES:
        what.add_argument(f"--{name}", default="", metavar="X", help=text)
    _add_signing(add)
    add.set_defaults(handler=_add)

    release = actions.add_parser(
        "release", help="end a hold", description="End a hold. `hpcc audit hold list` has its ID."
    )
    release.add_argument("id", metavar="ID", help="the hold")
    _add_signing(release)
    release.set_defaults(handler=_release)

    add_command(actions, "list", "list the holds in force, as the trail has them", _list)

    retire = commands.add_parser(
        "retire", help="allow a worker to remove old segments", description=_retire.__doc__
    )
    retire.add_argument(
        "--before", required=True, metavar="WHEN", help="400d, or a UTC time 2030-01-31[T12:00]"
    )
    _add_signing(retire)
    retire.set_defaults(handler=_retire)


def _add_signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", dest="keys", type=Path, action="append", required=True, metavar="FILE",
        help="the key of a person of the retention role; may be repeated",
    )  # fmt: skip
    parser.add_argument("--reason", required=True, metavar="TEXT", help="for the trail")
    parser.add_argument(
        "--config", type=Path, metavar="FILE",
        help="the worker's config file (default: that of `hpcc up`)",
    )  # fmt: skip


def _make_key(args: argparse.Namespace) -> int:
    from hpcc.audit.base.retention_statement import raw_key
    from hpcc.identity.keys import load_or_create_signing_key

    if args.file.exists():
        raise CallerError(f"{args.file} exists: name a new file, or remove it", reason="usage")
    key = load_or_create_signing_key(args.file)
    emit(f'"audit_retention_keys": ["{raw_key(key).hex()}"]')
    return 0


def _add(args: argparse.Namespace) -> int:
    """Let a worker keep rows, with all that follows in its trail, until the hold is released.

    The worker records the hold in its trail before this command returns.
    """
    from hpcc.audit.base.retention_statement import RetentionAction

    what, value = next((n, getattr(args, n)) for n, _ in _SCOPES if getattr(args, n))
    name = _said(args, RetentionAction.HOLD, secrets.token_hex(8), what=what, value=value)
    emit(f"hold {name} of {what} {printable(value)} is in force")
    return 0


def _release(args: argparse.Namespace) -> int:
    from hpcc.audit.base.retention_statement import RetentionAction

    _said(args, RetentionAction.RELEASE, args.id)
    emit(f"hold {printable(args.id)} is released")
    return 0


def _retire(args: argparse.Namespace) -> int:
    """Allow a worker to remove segments that were sealed before a time, which is past.

    They go once every sink has them, unless a hold keeps them or audit_keep_days does.
    """
    from hpcc.audit.base.retention_statement import RetentionAction

    now = utc_now()
    before = since_seconds(args.before, now, "--before")
    if before > now.timestamp():
        raise CallerError(
            f"--before {args.before}: a permission covers what is sealed already. Run this again"
            " after that time",
            reason="usage",
        )
    if before <= 0:
        raise CallerError(f"--before {args.before!r}: write 400d or 2030-01-31", reason="usage")
    _said(args, RetentionAction.RETIRE, secrets.token_hex(8), before=before)
    emit(f"what was sealed before {time_text(before)} may be removed")
    return 0


def _said(
    args: argparse.Namespace,
    action: RetentionAction,
    name: str,
    **more: Any,  # noqa: ANN401 - fields of the statement
) -> str:
    """Sign a statement, give it to the worker, and wait until its trail has it; return its id.

    Raises:
        InfrastructureError: the worker does not answer. The statement waits for it.
        PolicyError: the worker refuses the statement.
    """
    from hpcc.audit.base.retention_statement import RetentionStatement, sign_statement
    from hpcc.config.service_file import load_service_file
    from hpcc.ports import SystemClock
    from hpcc.worker.base.config import WorkerConfig
    from hpcc.worker.base.drain_file import become_owner
    from hpcc.worker.base.retention_file import RetentionFiles

    path = args.config or Paths.from_env(os.environ).state / "worker.json"
    config = load_service_file(path.absolute(), WorkerConfig)
    keys = [_key(path) for path in args.keys]
    clock = SystemClock()
    statement = RetentionStatement(
        action=action, id=name, worker=config.worker_id, at=clock.now(), by=operator_name(),
        reason=args.reason, **more,
    )  # fmt: skip
    become_owner(config.state)
    files = RetentionFiles(config.state)
    request = files.write(sign_statement(statement, keys))
    answer = asyncio.run(_answered(files, request, clock))
    if answer is None:
        raise InfrastructureError(
            f"worker {config.worker_id} does not answer. The statement counts once it runs:"
            f" {files.path(request)}",
            reason="retention",
        )
    if answer.error:
        raise PolicyError(f"the worker refuses it: {answer.error}", reason="retention")
    return name


async def _answered(files: RetentionFiles, request: str, clock: Clock) -> RetentionAnswer | None:
    patience = clock.monotonic() + _ANSWER_SECONDS
    while (answer := files.answer_or_none(request)) is None and clock.monotonic() < patience:
        await clock.sleep(_LOOK_SECONDS)
    return answer


def _key(path: Path) -> Ed25519PrivateKey:
    from hpcc.identity.keys import load_or_create_signing_key

    if not path.exists():
        raise CallerError(f"there is no key {path}: `hpcc audit hold key FILE` makes one")
    return load_or_create_signing_key(path)


def _list(args: argparse.Namespace) -> int:
    from hpcc.audit.base.trail import require_trail
    from hpcc.audit.holds import in_force

    directory = directory_of(args)
    require_trail(directory)
    holds, _, allowed = in_force(directory)
    for hold in holds.values():
        said = hold.statement
        emit(
            f"{said.id}  {said.what} {printable(said.value)}  since {time_text(said.at)}, record"
            f" {hold.sequence}, by {printable(said.by) or '-'}: {printable(said.reason)}"
        )
    if not holds:
        emit("no hold is in force")
    for one in allowed:
        emit(
            f"what was sealed before {time_text(one.before)} may be removed, of the records before"
            f" {one.until}"
        )
    return 0
