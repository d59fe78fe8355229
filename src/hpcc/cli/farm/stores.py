"""`hpcc worker stores`: the counters of a worker's shared stores."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from hpcc.cli.base.terminal import emit
from hpcc.config.service_file import load_service_file
from hpcc.core import CallerError

# Calls of a store; each has a count, bytes, milliseconds and failures.
_CALLS: Final = ("get", "put", "has")
_DETAILS: Final = frozenset({"calls", "bytes", "ms", "absent"})


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `stores` below `hpcc worker`."""
    parser = actions.add_parser(
        "stores", help="show the counters of a worker's shared stores", description=_stores.__doc__
    )
    # A separate name, so that the default does not overwrite `hpcc worker --config FILE`.
    parser.add_argument(
        "--config", dest="worker_config", type=Path, metavar="FILE", help="the worker's config file"
    )
    parser.add_argument("--json", action="store_true", help="print the counters as JSON")
    parser.set_defaults(handler=_stores)


def _stores(args: argparse.Namespace) -> int:
    """Show calls, bytes, mean times and failures by tenant, since the worker started."""
    from hpcc.worker.base.config import WorkerConfig
    from hpcc.worker.stores.store_stats import read_stores_report

    path = args.worker_config or getattr(args, "config", None)
    if path is None:
        raise CallerError("--config FILE is missing", reason="usage")
    config = load_service_file(Path(path).absolute(), WorkerConfig)
    report = read_stores_report(config.state)
    if args.json:
        emit(json.dumps(asdict(report), sort_keys=True))
        return 0
    emit(f"since {_when(report.since)}, as of {_when(report.at)}")
    for tenant, counts in sorted(report.tenants.items()):
        emit(f"\n{tenant}")
        for line in lines(counts):
            emit(f"  {line}")
    return 0


def lines(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield the counters of one tenant as lines: calls first, then all others."""
    for call in _CALLS:
        number = counts.get(f"{call}.calls", 0)
        if not number:
            continue
        mean = counts.get(f"{call}.ms", 0) / number
        text = f"{call:<4}{number:>10,} calls, {mean:.1f} ms each"
        if size := counts.get(f"{call}.bytes", 0):
            text += f", {size / 1e6:,.1f} MB"
        if absent := counts.get(f"{call}.absent", 0):
            text += f", {absent:,} absent"
        yield text
    for name, count in sorted(counts.items()):
        call, _, detail = name.partition(".")
        if count and not (call in _CALLS and detail in _DETAILS):
            yield f"{name:<40}{count:>10,}"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
