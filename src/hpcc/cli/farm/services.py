"""`hpcc scheduler`, `worker` and `gateway`: run a farm's services from their config files."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcc.cli.audit import scheduler_audit
from hpcc.cli.farm import (
    certificates,
    control,
    drain,
    enrol,
    reseal,
    result_keys,
    stores,
    tenants,
    windows_service,
)
from hpcc.core import CallerError


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    for name, handler, text in (
        ("scheduler", _run_scheduler, "run a farm's scheduler in the foreground (see `up`)"),
        ("worker", _run_worker, "run a farm's worker in the foreground (see `up`)"),
        ("gateway", _run_gateway, "run a gateway for stock REAPI clients in the foreground"),
    ):
        parser = subparsers.add_parser(name, help=text)
        parser.add_argument("--config", type=Path, metavar="FILE", help="JSON file, mode 0600")
        parser.set_defaults(handler=handler)
        if name == "scheduler":
            actions = parser.add_subparsers(title="actions", metavar="ACTION")
            for module in (tenants, control, certificates, reseal, result_keys, scheduler_audit):
                module.register(actions)
            enrol.register_scheduler(actions)
            drain.register_scheduler(actions)
        elif name == "worker":
            actions = parser.add_subparsers(title="actions", metavar="ACTION")
            enrol.register_worker(actions)
            drain.register_worker(actions)
            stores.register(actions)
            windows_service.register_worker(actions)


def _run_scheduler(args: argparse.Namespace) -> int:
    from hpcc.rpc.base.process import run_service
    from hpcc.scheduler.__main__ import main

    return run_service("scheduler", main, _config(args))


def _run_worker(args: argparse.Namespace) -> int:
    from hpcc.rpc.base.process import run_service
    from hpcc.worker.__main__ import main

    return run_service("worker", main, _config(args))


def _run_gateway(args: argparse.Namespace) -> int:
    from hpcc.gateway.__main__ import main
    from hpcc.rpc.base.process import run_service

    return run_service("gateway", main, _config(args))


def _config(args: argparse.Namespace) -> Path:
    if args.config is None:
        raise CallerError("--config FILE is missing", reason="usage")
    return Path(args.config)
