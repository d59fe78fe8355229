"""`hpcc trace --otlp`: sends a recorded build to a collector and says what it took."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from typing import Final

from hpcc.cache.recorder.export import sender_of
from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cache.recorder.spans import TracedBuild, parent_of, requests_of, trace_id_of
from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.config.settings import TraceSettings, load_settings
from hpcc.core import CallerError, InfrastructureError
from hpcc.obs.otlp.sender import TRACES, PostEnding

_SETTINGS: Final = "settings"


def send(recorded: RecordedBuild, args: argparse.Namespace) -> None:
    """Send a build that has at least one compile.

    Raises:
        CallerError: the address or a file cannot be used.
        InfrastructureError: the collector cannot be reached, or did not take all of it.
    """
    trace = _chosen(args)
    sender = sender_of(trace)
    parent = parent_of(recorded.build, os.environ.get("TRACEPARENT", ""))
    build = TracedBuild(recorded.build, recorded.compiles[0].began_us, parent)
    sent = 0
    for request in requests_of(build, recorded.compiles, names=trace.names):
        answer = sender.post(TRACES, request.body)
        if answer.ending is not PostEnding.TAKEN or answer.rejected:
            what = answer.what or f"it rejected {answer.rejected} spans"
            raise InfrastructureError(
                f"OTLP at {sender.place} did not take the build: {what} (taken before: {sent}"
                " spans)",
                reason="otlp",
            )
        sent += request.spans
    trace_id = trace_id_of(build).hex()
    emit(f"sent: {sent} spans of trace {trace_id} to {sender.place}", file=sys.stderr)


def _chosen(args: argparse.Namespace) -> TraceSettings:
    """Return where to send to. Headers of the settings are for the address of the settings only."""
    if args.otlp != _SETTINGS:
        return TraceSettings(
            otlp=args.otlp, otlp_headers_file=args.otlp_headers or "",
            otlp_ca_file=args.otlp_ca or "", names=args.names,
        )  # fmt: skip
    if args.otlp_headers or args.otlp_ca:
        raise CallerError("--otlp settings takes its files from [trace] in hpcc.toml, too")
    trace = load_settings(Paths.from_env(os.environ).config_file).trace
    return replace(trace, names=trace.names or args.names)
