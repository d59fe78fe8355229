"""`hpcc start | stop | status`, and `hpcc wrap`, which the launcher handles itself."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Final

from hpcc.cli.base.terminal import emit
from hpcc.config.owners import refuse_foreign_owner
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import CallerError, HpccError, NotFoundError
from hpcc.ports import SystemClock

# LSB init scripts: "program is not running".
_EXIT_NOT_RUNNING: Final = 3
_MINUTE: Final = 60
_HOUR: Final = 3600


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    start = subparsers.add_parser(
        "start", help="start the daemon (the first compile also does)", description=_start.__doc__
    )
    start.add_argument("--quiet", action="store_true", help="print nothing unless it fails")
    start.set_defaults(handler=_start)
    stop = subparsers.add_parser("stop", help="stop the daemon", description=_stop.__doc__)
    stop.add_argument(
        "--now",
        action="store_true",
        help="do not wait for running compiles (they continue without the daemon); "
        "kills a daemon that hangs",
    )
    stop.set_defaults(handler=_stop)
    status = subparsers.add_parser(
        "status", help="show whether the daemon runs and what it does", description=_status.__doc__
    )
    status.add_argument("--json", action="store_true", help="print the daemon's answer as JSON")
    status.set_defaults(handler=_status)
    wrap = subparsers.add_parser(
        "wrap", help="run a program that has the name of a command of hpcc: hpcc wrap CC args…"
    )
    wrap.add_argument("compiler", metavar="CC")
    wrap.add_argument("arguments", nargs=argparse.REMAINDER, metavar="args")
    wrap.set_defaults(handler=_wrap)


def start_daemon(*, for_launcher: bool = False) -> bool:
    """Start the user's daemon unless it runs; return whether it was started."""
    from hpcc.daemon.client import LAUNCHER_START_SECONDS, START_SECONDS, start

    seconds = LAUNCHER_START_SECONDS if for_launcher else START_SECONDS
    return start(Paths.from_env(os.environ), seconds)


def stop_daemon(*, now: bool = False) -> bool:
    """Stop the user's daemon; return whether one was running."""
    from hpcc.daemon.client import stop

    return stop(Paths.from_env(os.environ), now=now)


def _start(args: argparse.Namespace) -> int:
    """Start the per-user daemon and wait until it accepts compiles; keep a running one."""
    was_started = start_daemon(for_launcher=args.quiet)
    if not args.quiet:
        emit("the daemon is started" if was_started else "the daemon is already running")
    return 0


def _stop(args: argparse.Namespace) -> int:
    """Stop the daemon after the running compiles have finished."""
    was_there = stop_daemon(now=args.now)
    emit("the daemon is stopped" if was_there else "no daemon was running")
    return 0


def _status(args: argparse.Namespace) -> int:
    """Show the daemon's state; the exit code is 3 if it is not running."""
    from hpcc.daemon.client import query

    paths = Paths.from_env(os.environ)
    try:
        answer = query(paths, "status")
    except NotFoundError:
        # An error of either explains why no daemon runs.
        refuse_foreign_owner(paths, os.environ)
        load_settings(paths.config_file)
        emit("no daemon is running; the next compile or `hpcc start` starts one")
        if not args.json and sys.platform != "win32":
            emit(f"{'root':<9} {root_line()}")
        return _EXIT_NOT_RUNNING
    if args.json:
        emit(json.dumps(answer, indent=1, sort_keys=True))
        return 0
    lines = _status_lines(answer)
    if sys.platform != "win32":  # the search there is another one, and needs the daemon's tools
        lines.append(("root", root_line()))
    if (
        isinstance(answer.get("farm"), dict) and sys.platform != "win32"
    ):  # Windows keeps no records yet
        lines.append(("fallback", _fallbacks()))
    lines += agreement_lines(paths) + guests_lines(paths)
    for name, value in lines:
        emit(f"{name:<9} {value}")
    return 0


def agreement_lines(paths: Paths) -> list[tuple[str, str]]:
    """Return a line if the farm's workers do not see each other's claims; else nothing."""
    from hpcc.config.farm_session import load_farm_session_or_none

    session = load_farm_session_or_none(paths.farm_session_file)
    if session is None or session.agreement != "apart":
        return []
    return [("agreement", "by claims that clients carry: the farm's workers have no common store")]


def guests_lines(paths: Paths) -> list[tuple[str, str]]:
    """Return what the worker of `hpcc up` reports of guests and results; nothing without one."""
    from hpcc.worker.pool.report import read_guests

    try:
        said = read_guests(paths.state / "runtime")
    except HpccError:
        return []
    names = ("guests", "idle", "started", "ahead", "ahead_unused", "parked")
    n = {name: said.get(name, 0) for name in names}
    lines = [
        (
            "guests",
            f"{n['guests']} now, {n['idle']} idle; {n['started']} started, {n['ahead']} of them"
            f" ahead of demand ({n['ahead_unused']} ended unused); {n['parked']} parked",
        )
    ]
    return lines + sharing_lines(said)


def sharing_lines(said: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return what a worker shared with a tenant's members; nothing if it shared nothing."""
    if not any(name.startswith("sharing.") for name in said):
        return []
    fresh, agreed, odd, suspects = (
        said.get(f"sharing.{name}", 0)
        for name in (
            "published.fresh",
            "published.agreed",
            "disagreements",
            "disagreements.suspects",
        )
    )
    text = f"{fresh} results as fresh, {agreed} by agreement"
    made = sum(said.get(f"sharing.verify.{name}", 0) for name in ("equal", "differs"))
    if made:
        text += f"; {made} executed again in idle time"
    if odd:
        text += (
            f"; {odd} executions gave different results, {suspects} of them differ from two fresh"
            " ones (hpcc audit determinism)"
        )
    return [("shared", text)]


def _status_lines(answer: dict[str, object]) -> list[tuple[str, str]]:
    state = "stopping" if answer.get("is_stopping") else "running"
    return [
        (
            "daemon",
            f"{state}, pid {answer.get('pid')}, up {_duration(answer.get('uptime_seconds'))}",
        ),
        ("version", f"{answer.get('version')} (build {answer.get('build_id')})"),
        ("socket", str(answer.get("socket"))),
        (
            "compiles",
            f"{answer.get('waiting')} waiting for an answer, "
            f"{answer.get('running')} running at their launchers",
        ),
        ("farm", _farm_line(answer.get("farm"))),
    ]


def root_line() -> str:
    """Return the root of a project that is built in the current directory."""
    from hpcc.cache.root.project_root import find_project_root
    from hpcc.cli.cache.checkout import home_directory

    cwd = os.fsencode(os.path.realpath("."))
    root = find_project_root(cwd + b"/any.c", cwd, home_directory())
    if root is None:
        return (
            "the directory of each compile: no .hpcc, .git, .hg, .jj or CMake cache above this one"
        )
    return f"{os.fsdecode(root.path)} ({root.way})"


def _fallbacks() -> str:
    from hpcc.cache.results.records_read import read_records
    from hpcc.cli.base.fallback_line import fallback_line
    from hpcc.daemon.client import query

    paths = Paths.from_env(os.environ)
    with contextlib.suppress(HpccError):
        query(paths, "stats")  # makes the daemon write the records it has in memory
    return fallback_line(read_records(os.fspath(paths.cache)), SystemClock().now())


def _farm_line(farm: object) -> str:
    if not isinstance(farm, dict):
        return "none" if sys.platform == "win32" else "none (`hpcc up` starts one)"
    if "error" in farm:
        return str(farm["error"])
    line = f"{farm.get('scheduler')}, image {farm.get('image')}, {farm.get('isolation')}"
    if sys.platform == "win32":  # a person may have written farm.json: it needs no `hpcc up`
        return line
    from hpcc.cli.base.lock import holder_or_none, lock_file

    if holder_or_none(lock_file(Paths.from_env(os.environ))) is None:
        return f"{line}; it ended without `hpcc down`: run `hpcc up`"
    return line


def _duration(seconds: object) -> str:
    whole = int(seconds) if isinstance(seconds, int | float) else 0
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def _wrap(_args: argparse.Namespace) -> int:
    """Refuse: only the launcher, a C program, can do this."""
    emit("hpcc-cli cannot run compilers; call `hpcc wrap CC args…`", file=sys.stderr)
    raise CallerError("use the hpcc program beside hpcc-cli", reason="wrong-program")
