"""Options and times that the commands of `hpcc audit` have in common."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import CallerError
from hpcc.obs.text import plain

if TYPE_CHECKING:
    from hpcc.audit.base.query import Query

# The index of a segment is not the one that was sealed. 1 and 2 are of every failed command.
EXIT_INDEX: Final = 3
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STATUSES: Final = ("executed", "hit", "joined", "abandoned", "verify", "explain", "pack")
BUILD_HELP: Final = "the build that the client named: `hpcc explain` prints it"
# Options of `query` and `export`: name, field of `Query`, help.
_FILTERS: Final = (
    ("tenant", "tenant", "rows and events of this tenant"),
    ("principal", "principal", "the principal who asked"),
    ("build", "build_id", BUILD_HELP),
    ("action", "action_digest", "action digest, or the start of one"),
    ("image", "image_digest", "image digest, or the start of one"),
    ("guest", "guest_id", "guest id, or the start of one"),
    ("worker", "worker", "the worker that wrote the record"),
    ("isolation", "isolation", "isolation label: firecracker/kvm, qemu/tcg, …"),
    ("reuse", "reuse", "exec, principal or tenant"),
    ("status", "cache_status", "executed, hit, joined, abandoned, verify, explain or pack"),
    ("reason", "reason", "why no result was released"),
    ("event", "name", "security events of this name (implies --events)"),
    ("peer", "peer", "security events caused from this address, or the start of one"),
    ("request", "request_id", "the security event of this call"),
    ("object", "object_digest", "rows with an output of this digest, or the start of one"),
)


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help_text: str,
    handler: Callable[[argparse.Namespace], int] | None = None,
) -> argparse.ArgumentParser:
    """Add a command that reads one trail; without a handler the caller sets it."""
    parser = commands.add_parser(name, help=help_text)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--directory", type=Path, help="the trail's directory (default: that of `hpcc up`)"
    )
    where.add_argument(
        "--scheduler-state",
        type=Path,
        metavar="DIR",
        help="the security events of the scheduler with this state directory",
    )
    parser.set_defaults(handler=handler)
    return parser


def directory_of(args: argparse.Namespace) -> Path:
    """Return the directory of the trail that the options name."""
    if args.scheduler_state is not None:
        state: Path = args.scheduler_state
        return state / "events"
    given: Path | None = args.directory
    return given if given is not None else Paths.from_env(os.environ).audit


def add_exhaustive(parser: argparse.ArgumentParser) -> None:
    """Add the option that reads without indexes."""
    parser.add_argument(
        "--exhaustive", action="store_true", help="use no index: read every segment to its seal"
    )


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that `query` and `export` have."""
    for option, field, text in _FILTERS:
        parser.add_argument(
            f"--{option}",
            dest=field,
            default="",
            metavar="X",
            # An unknown status would match no row and look like an empty trail.
            type=_status if option == "status" else str,
            help=text,
        )
    parser.add_argument(
        "--exit-code", type=int, default=None, metavar="N", help="the compiler's exit code"
    )
    add_kind(parser)
    add_times(parser)


def _status(text: str) -> str:
    if text and text not in _STATUSES:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(_STATUSES)}")
    return text


def add_kind(parser: argparse.ArgumentParser) -> None:
    """Add the choice between rows and events."""
    parser.add_argument("--events", action="store_true", help="security events instead of rows")


def add_times(parser: argparse.ArgumentParser) -> None:
    """Add the options that limit the time."""
    parser.add_argument(
        "--since", metavar="WHEN", default="", help="30m, 12h, 7d, or a UTC time 2030-01-31[T12:00]"
    )
    parser.add_argument(
        "--until", metavar="WHEN", default="", help="as --since; the time itself is excluded"
    )


def add_limit(parser: argparse.ArgumentParser, default: int) -> None:
    """Add the option that limits how many records are shown."""
    parser.add_argument(
        "-n", "--limit", type=_count, default=default, help=f"number of records (default {default})"
    )


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 0 < value <= 1_000_000:  # noqa: PLR2004 - a limit that fits any screen and most memories
        raise argparse.ArgumentTypeError("must be 1 to 1000000")
    return value


def query_of(args: argparse.Namespace, limit: int) -> Query:
    """Return the query that the options describe."""
    from hpcc.audit.base.query import Query

    chosen = {field: getattr(args, field, "") for _, field, _ in _FILTERS}
    # A scheduler's trail contains only events.
    is_events = args.events or bool(chosen["name"]) or args.scheduler_state is not None
    now = utc_now()
    return Query(
        kind="event" if is_events else "row",
        since=since_seconds(args.since, now),
        until=since_seconds(args.until, now, "--until") if args.until else None,
        exit_code=getattr(args, "exit_code", None),
        limit=limit,
        **chosen,
    )


def since_seconds(text: str, now: datetime, option: str = "--since") -> float:
    """Parse `--since` or `--until`, an age or a UTC time; return seconds since the epoch.

    Raises:
        CallerError: the text is neither.
    """
    if not text:
        return 0.0
    number, unit = text[:-1], text[-1]
    if unit in _UNITS and number.isascii() and number.isdigit() and len(number) < 7:  # noqa: PLR2004 - a million days is enough
        try:
            return (now - timedelta(seconds=int(number) * _UNITS[unit])).timestamp()
        except OverflowError:
            return 0.0
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise CallerError(f"{option} {text!r}: write 30m, 12h, 7d or 2030-01-31T12:00") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def utc_now() -> datetime:
    """Return the time now."""
    from hpcc.ports import SystemClock

    return datetime.fromtimestamp(SystemClock().now(), UTC)


def say_unproved(count: int) -> None:
    """Say on stderr that records were read which nothing signs; nothing if there are none."""
    if count:
        emit(
            f"hpcc: {count} of these records have no signature, and no seal or anchor covers them:"
            " who can write the disk can have changed them or put them in",
            file=sys.stderr,
        )


def naming_index(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return a handler that exits with `EXIT_INDEX` when an index is not the sealed one."""

    @functools.wraps(run)
    def handler(args: argparse.Namespace) -> int:
        from hpcc.audit.lookup.sealed import IndexChangedError

        try:
            return run(args)
        except IndexChangedError as error:
            sys.stdout.flush()
            emit(f"hpcc: {plain(error)}", file=sys.stderr)
            return EXIT_INDEX

    return handler
