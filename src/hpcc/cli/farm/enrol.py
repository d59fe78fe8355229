"""`hpcc scheduler enrol-token`, `workers`, `revoke-worker`, and `hpcc worker enrol`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError, InfrastructureError
from hpcc.obs.logs import log_to_stderr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hpcc.scheduler.enrolment import Enrolment

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_STORE_SECONDS: Final = 60.0


def register_scheduler(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the operator's actions below `hpcc scheduler`."""
    token = actions.add_parser(
        "enrol-token", help="print a token that enrols one worker, once", description=_token.__doc__
    )
    token.add_argument(
        "--valid", default="1h", metavar="SPAN", help="how long, such as 30m or 1d (default: 1h)"
    )
    token.add_argument(
        "--name", default="", metavar="ID", help="only for this worker; replaces it if it exists"
    )
    token.set_defaults(handler=_token)
    workers = actions.add_parser(
        "workers", help="list all workers that were ever enrolled", description=_workers.__doc__
    )
    workers.set_defaults(handler=_workers)
    revoke = actions.add_parser(
        "revoke-worker", help="refuse a worker from now on", description=_revoke.__doc__
    )
    revoke.add_argument("worker", metavar="ID")
    revoke.set_defaults(handler=_revoke)
    forget = actions.add_parser(
        "forget-worker",
        help="remove a revoked worker from the list",
        description=_forget.__doc__,
    )
    forget.add_argument("worker", metavar="ID")
    forget.set_defaults(handler=_forget)
    for parser in (token, workers, revoke, forget):
        # A separate name, so that the default does not overwrite `hpcc scheduler --config FILE`.
        parser.add_argument(
            "--config",
            dest="control_config",
            type=Path,
            metavar="FILE",
            help="the scheduler's config file",
        )


def register_worker(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `enrol` below `hpcc worker`."""
    enrol = actions.add_parser(
        "enrol", help="get this worker's certificate from a scheduler", description=_enrol.__doc__
    )
    enrol.add_argument(
        "--scheduler",
        required=True,
        metavar="HOST:PORT",
        help="the port for daemons; several addresses are separated by commas",
    )
    enrol.add_argument(
        "--ca",
        type=Path,
        required=True,
        metavar="FILE",
        help="PEM file with the certificates of all these schedulers",
    )
    enrol.add_argument(
        "--token-file",
        type=Path,
        required=True,
        metavar="FILE",
        help="output of enrol-token, mode 0600",
    )
    enrol.add_argument(
        "--name",
        required=True,
        metavar="ID",
        help="the worker's id, `worker_id` in the config file",
    )
    enrol.add_argument(
        "--keys",
        type=Path,
        required=True,
        metavar="DIR",
        help="the keys directory, `keys` in the config file",
    )
    enrol.set_defaults(handler=_enrol)


def span_seconds(text: str) -> float:
    """Parse `90s`, `30m`, `1h`, `7d`; return seconds.

    Raises:
        CallerError: the text has another form.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise CallerError(
            f"{text!r} is not a span of time: write 90s, 30m, 1h or 7d", reason="usage"
        )
    return float(int(match[1]) * _UNITS[match[2]])


def _token(args: argparse.Namespace) -> int:
    """Print a token. It can enrol a worker: treat it like a password."""
    seconds = span_seconds(args.valid)
    emit(_with_enrolment(args, lambda enrolment: enrolment.new_token(args.name, seconds)))
    return 0


def _workers(args: argparse.Namespace) -> int:
    """List workers: id, key, when enrolled, whether revoked."""
    for name, worker in _with_enrolment(args, lambda enrolment: enrolment.workers()).items():
        state = f"revoked {_when(worker.revoked_at)}" if worker.revoked_at else "enrolled"
        pool = f"  pool {worker.pool}" if worker.pool else ""
        emit(f"{name}  {worker.key_id}  {_when(worker.enrolled_at)}  {state}{pool}")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    """Refuse a worker's certificates from now on, at every scheduler."""
    _with_enrolment(args, lambda enrolment: enrolment.revoke(args.worker))
    emit(f"worker {args.worker} is refused; a token with --name {args.worker} enrols it again")
    emit("its results are still valid: see `hpcc scheduler revoke-result-key`")
    return 0


def _forget(args: argparse.Namespace) -> int:
    """Remove a revoked worker from the list. A pod of its name may enrol again, with another key.

    The certificates that it had stay refused.
    """
    _with_enrolment(args, lambda enrolment: enrolment.forget(args.worker))
    emit(f"worker {args.worker} is forgotten: its name may be enrolled again")
    return 0


def _enrol(args: argparse.Namespace) -> int:
    """Create a key on this machine and get a certificate for it from the scheduler."""
    from hpcc.identity.tls import PinnedPeer
    from hpcc.rpc.scheduler.schedulers import split_schedulers
    from hpcc.worker.base.identity import enrol_worker, read_token

    try:
        authority = args.ca.read_bytes()
    except OSError as error:
        raise CallerError(f"cannot read {args.ca}: {error.strerror}", reason="usage") from error
    try:
        PinnedPeer.from_pem(authority)
    except CallerError as error:
        raise CallerError(f"{args.ca}: {error}", reason="usage") from error
    enrolling = enrol_worker(
        args.keys.absolute(),
        scheduler=",".join(split_schedulers(args.scheduler)),
        certificate_pem=authority,
        token=read_token(args.token_file.absolute()),
        worker_id=args.name,
    )
    try:
        identity, port = asyncio.run(enrolling)
    except InfrastructureError as error:
        raise InfrastructureError(
            f"{error} (is {args.scheduler} the port for daemons, and {args.ca} this scheduler's"
            " certificate?)",
            reason=error.reason,
        ) from error
    hosts = [address.rpartition(":")[0] for address in split_schedulers(args.scheduler)]
    schedulers = ",".join(f"{host}:{port}" for host in hosts)
    emit(f"worker {args.name} is enrolled until {_when(identity.expires_at)}, and renews itself")
    emit(f'  in its config file:  "scheduler": "{schedulers}"')
    return 0


def _with_enrolment[T](args: argparse.Namespace, act: Callable[[Enrolment], Awaitable[T]]) -> T:
    from hpcc.cli.farm.control import scheduler_config
    from hpcc.ports import SystemClock
    from hpcc.scheduler.serve import open_enrolment

    log_to_stderr(logging.ERROR)
    config = scheduler_config(args)

    async def run() -> T:
        async with (
            asyncio.timeout(_STORE_SECONDS),
            open_enrolment(config, SystemClock()) as enrolment,
        ):
            return await act(enrolment)

    return asyncio.run(run())


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
