"""`hpcc scheduler` and `hpcc worker`: the services of a farm, each from its config file."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    for name, handler, text in (
        ("scheduler", _run_scheduler, "run a scheduler in the foreground (a farm's; see `up`)"),
        ("worker", _run_worker, "run a worker in the foreground (a farm's; see `up`)"),
    ):
        parser = subparsers.add_parser(name, help=text)
        parser.add_argument(
            "--config", type=Path, required=True, metavar="FILE", help="JSON file, mode 0600"
        )
        parser.set_defaults(handler=handler)


def _run_scheduler(args: argparse.Namespace) -> int:
    from hpcc.rpc import run_service
    from hpcc.scheduler.__main__ import main

    return run_service("scheduler", main, args.config)


def _run_worker(args: argparse.Namespace) -> int:
    from hpcc.rpc import run_service
    from hpcc.worker.__main__ import main

    return run_service("worker", main, args.config)
