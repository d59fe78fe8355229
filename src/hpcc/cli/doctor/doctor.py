"""`hpcc doctor`: what is present, what is missing, what that costs, and how to fix it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from hpcc.cli.base.terminal import emit
from hpcc.cli.doctor.check import Check, DoctorCheck
from hpcc.config.extras import adding, extra_of, missing_modules
from hpcc.config.paths import Paths
from hpcc.core import HpccError

_STATE_WIDTH: Final = 10
_NAME_WIDTH: Final = 14  # "remote cache" and a gap


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor`."""
    parser = subparsers.add_parser(
        "doctor", help="show what is present, what is missing, what that costs and how to fix it"
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument(
        "--worker", type=Path, metavar="FILE",
        help="also the engine that the bot of this worker's config file belongs to",
    )  # fmt: skip
    parser.set_defaults(handler=run_doctor)


def run_doctor(args: argparse.Namespace) -> int:
    """Print every check; return 0 if the local cache, and the bot's engine, work, else 1."""
    checks = asyncio.run(collect(Paths.from_env(os.environ)))
    engine = [] if args.worker is None else asyncio.run(_engine(args.worker.absolute()))
    if args.json:
        emit(json.dumps([asdict(c) for c in (*checks, *engine)], indent=1))
    else:
        for check in (*checks, *engine):
            _print(check)
        _print_summary(checks, engine)
    needed = [*(c for c in checks if c.is_local), *engine]
    return int(any(check.state == "missing" for check in needed))


async def _engine(file: Path) -> list[DoctorCheck]:
    if missing_modules("farm"):
        return [DoctorCheck(
            name="engine", state="missing", detail="hpcc[farm] is not installed",
            remedy=adding("farm"),
        )]  # fmt: skip
    from hpcc.cli.doctor.engine import engine_checks

    return await engine_checks(file)


async def _no_farm(_: Paths) -> DoctorCheck:
    return DoctorCheck(
        name="guests", state="missing", detail="hpcc[farm] is not installed",
        cost="no guests on this machine: misses are compiled here, or on a farm elsewhere",
        remedy=adding("farm"),
    )  # fmt: skip


_WITHOUT_FARM: Final[Mapping[str, Check]] = {"guests": _no_farm}


async def collect(paths: Paths) -> list[DoctorCheck]:
    """Run every check; an unexpected error becomes that check's result and ends no other check."""
    checks = []
    local, guests = _tables()
    if missing_modules("farm"):
        guests = _WITHOUT_FARM
    for name, ask in (*local.items(), *guests.items()):
        try:
            checks.append(await ask(paths))
        except ModuleNotFoundError as error:
            extra = extra_of(error.name or "")
            if extra is None:
                raise
            detail = f"not known without hpcc[{extra}]"
            checks.append(
                DoctorCheck(name=name, state="degraded", detail=detail, remedy=adding(extra))
            )
        except (HpccError, OSError) as error:
            said = next((c.name for c in checks if c.detail == str(error)), "")
            detail = f"not known: see {said}" if said else str(error)
            checks.append(DoctorCheck(name=name, state="missing", detail=detail))
    return checks


def _tables() -> tuple[Mapping[str, Check], Mapping[str, Check]]:
    """Return the checks of this operating system: of local compiles, and of guests."""
    if sys.platform == "win32":
        from hpcc.cli.doctor.windows_local import WINDOWS_CHECKS, WINDOWS_GUEST_CHECKS

        return WINDOWS_CHECKS, WINDOWS_GUEST_CHECKS
    from hpcc.cli.doctor.guests import GUEST_CHECKS
    from hpcc.cli.doctor.local import LOCAL_CHECKS

    return LOCAL_CHECKS, GUEST_CHECKS


def _print(check: DoctorCheck) -> None:
    emit(f"{check.state:<{_STATE_WIDTH}}{check.name:<{_NAME_WIDTH}}{check.detail}")
    if check.state != "ok":
        indent = " " * (_STATE_WIDTH + _NAME_WIDTH)
        if check.cost:
            emit(f"{indent}cost: {check.cost}")
        if check.remedy:
            emit(f"{indent}fix:  {check.remedy}")


def _print_summary(checks: Sequence[DoctorCheck], engine: Sequence[DoctorCheck]) -> None:
    local = [c.name for c in checks if c.is_local and c.state == "missing"]
    guests = [c.name for c in checks if not c.is_local and c.state == "missing"]
    emit()
    emit("local cache:  " + (f"does not work ({', '.join(local)})" if local else "works"))
    emit("guests here:  " + (f"cannot run ({', '.join(guests)})" if guests else "can run"))
    if engine:
        bot = [c.name for c in engine if c.state == "missing"]
        emit("bot:          " + (f"cannot serve ({', '.join(bot)})" if bot else "can serve"))
