"""`hpcc builds`, `hpcc report` and `hpcc trace`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import CallerError, HpccError, NotFoundError

if TYPE_CHECKING:
    from hpcc.cache.recorder.reading import RecordedBuild
    from hpcc.cache.recorder.report import BuildReport


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    builds = subparsers.add_parser(
        "builds", help="list the builds that were recorded", description=_builds.__doc__
    )
    builds.add_argument("--json", action="store_true", help="print one JSON document")
    builds.set_defaults(handler=_builds)
    report = subparsers.add_parser(
        "report",
        help="show what a build compiled, where, and why not from the cache",
        description=_report.__doc__,
    )
    _add_build(report)
    report.add_argument("--json", action="store_true", help="print one JSON document")
    report.add_argument("--html", metavar="FILE", help="write one page without scripts to FILE")
    report.add_argument(
        "--compare",
        metavar="OTHER",
        help="show what changed since this build: a name or a part of it, as for BUILD",
    )
    report.set_defaults(handler=_report)
    trace = subparsers.add_parser(
        "trace",
        help="write a build as a trace for ui.perfetto.dev, or send it over OTLP",
        description=_trace.__doc__,
    )
    _add_build(trace)
    trace.add_argument("-o", "--output", metavar="FILE", help="the file to write; - for stdout")
    trace.add_argument(
        "--otlp",
        metavar="URL",
        help="send the build as spans to this OTLP collector, https://HOST[:PORT][/PATH]; the word"
        " settings means the one of [trace] in hpcc.toml, with its files",
    )
    trace.add_argument(
        "--otlp-headers", metavar="FILE", help="a 0600 file with headers for the URL, a line each"
    )
    trace.add_argument(
        "--otlp-ca", metavar="FILE", help="PEM of the roots that the URL's certificate counts with"
    )
    trace.add_argument(
        "--names", action="store_true", help="send names of files, too (without: only with -o)"
    )
    trace.set_defaults(handler=_trace)


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "build",
        metavar="BUILD",
        nargs="?",
        default="last",
        help="a build's name or a part of it, as `hpcc builds` lists it (default: last)",
    )


def _builds(args: argparse.Namespace) -> int:
    """List the recorded builds of this user, the last one at the end."""
    from hpcc.cache.recorder.reading import list_builds
    from hpcc.cli.builds.text import builds_lines

    found = list_builds(_recorded_in())
    if args.json:
        rows = [
            {
                "build": line.build, "began_at": line.began_us / 1e6,
                "ended_at": line.ended_us / 1e6, "compiles": line.compiles, "hits": line.hits,
                "bypassed": line.bypassed, "links": line.links, "example": line.source,
                "is_damaged": line.is_damaged,
            }
            for line in found
        ]  # fmt: skip
        emit(json.dumps({"format": 1, "builds": rows}, indent=1))
        return 0
    if not found:
        raise NotFoundError("no build is recorded: compile through hpcc, and ask again")
    emit("\n".join(builds_lines(found)))
    return 0


def _report(args: argparse.Namespace) -> int:
    """Show a build: how long, from where, why not from the cache, and what would help.

    A build is named by TRACEPARENT, HPCC_BUILD or the run of a CI system; else it is guessed.
    """
    if args.compare is not None:
        return _compare(args)
    recorded, report = _found(args.build)
    if args.html is not None:
        from hpcc.cli.builds.page import page_of

        _write(args.html, page_of(report, recorded).encode("ascii", "xmlcharrefreplace"))
    if args.json:
        from hpcc.cli.builds.document import document_of

        emit(json.dumps(document_of(report), indent=1))
    elif args.html is None:
        from hpcc.cli.builds.text import report_lines

        emit("\n".join(report_lines(report)))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from hpcc.cache.recorder.reading import find_build
    from hpcc.cli.builds.compare_text import comparison_document, comparison_lines
    from hpcc.cli.builds.comparison import changed_units, comparable, units_of

    if args.html is not None:
        raise CallerError("--compare prints text or --json; `hpcc web` has the page")
    found, names, cache = [], set[str](), _recorded_in()
    for name in (args.compare, args.build):
        recorded = find_build(cache, name)
        names.add(recorded.build)
        found.append((comparable(recorded), units_of(recorded)))
    (before, old), (now, new) = found
    if len(names) == 1:
        raise CallerError(f"{now.build!r} is both builds: `hpcc builds` lists the names of others")
    units = changed_units(old, new)
    if args.json:
        emit(json.dumps(comparison_document(before, now, units), indent=1))
    else:
        emit("\n".join(comparison_lines(before, now, units)))
    return 0


def _trace(args: argparse.Namespace) -> int:
    """Write a build as trace events: a row for each slot, a slice for each compile and its parts.

    Open the file in ui.perfetto.dev, speedscope or chrome://tracing. It holds names of files. With
    --otlp the build goes to a collector of OpenTelemetry, as spans without names of files.
    """
    from hpcc.cli.builds.trace import trace_of

    if args.output is None and args.otlp is None:
        raise CallerError("where to? -o FILE writes the trace, --otlp URL sends it")
    recorded, _ = _found(args.build)
    if args.otlp is not None:
        from hpcc.cli.builds.otlp import send

        send(recorded, args)
    if args.output is None:
        return 0
    text = json.dumps(trace_of(recorded), separators=(",", ":"))
    if args.output == "-":
        emit(text)
    else:
        _write(args.output, text.encode("ascii"))
    return 0


def _found(name: str) -> tuple[RecordedBuild, BuildReport]:
    from hpcc.cache.recorder.reading import find_build
    from hpcc.cache.recorder.report import changed_key, report_of
    from hpcc.cache.results.changed_inputs import changed_inputs

    cache = _recorded_in()
    recorded = find_build(cache, name)
    asked = {changed_key(c) for c in recorded.compiles if c.reason == "inputs-changed"}
    return recorded, report_of(recorded, changed_inputs(cache, asked) if asked else {})


def _recorded_in() -> str:
    """Return the cache directory, after a running daemon has written what it has in memory."""
    from hpcc.daemon.client import query

    paths = Paths.from_env(os.environ)
    with contextlib.suppress(HpccError):
        query(paths, "stats")
    return os.fspath(paths.cache)


def _write(name: str, data: bytes) -> None:
    """Replace a file of the user's choice, readable by its owner only."""
    from hpcc.cli.base.chosen_file import chosen_file

    with chosen_file(Path(name)) as file:
        file.write(data)
    emit(f"written: {name}", file=sys.stderr)
