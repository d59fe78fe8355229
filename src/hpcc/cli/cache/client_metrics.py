"""The counters of `hpcc stats` as metrics, for the textfile collector of Prometheus' node exporter.

The file has to be whole whenever the collector reads it, and a machine's file is read by another
user. docs/metrics.md is generated from here.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcc import __version__
from hpcc.cli.base.chosen_file import chosen_file
from hpcc.core import CallerError
from hpcc.obs.metrics.registry import Metric, Number, Registry, Values
from hpcc.obs.metrics.text import exposition

_MODE: Final = 0o644
_MAX_LABELS: Final = 8
_LABEL: Final = re.compile(r"([a-z][a-z0-9_]{0,63})=(.{1,128})", re.DOTALL)
# What the metrics below have.
_TAKEN: Final = frozenset({"outcome", "source", "reason", "result", "event", "version", "python"})
# Of each family: more words than there are reasons.
_MAX_REASONS: Final = 256
# Counters whose first word names their family. What follows is the label.
_BY_REASON: Final = {
    "bypass": ("bypasses", "Commands that were not for the cache, by reason (docs/reasons.md)."),
    "uncacheable": ("uncacheable", "Compiles whose result was not kept, by reason."),
    "missed": ("missed", "Misses whose compile ended well, here or on a farm, by reason."),
    "private": ("private", "Results that are not shared with other checkouts, by reason."),
    "fallback": (
        "fallbacks",
        "Compiles that the farm did not do or that failed there, by reason; what they became here"
        " is counted, too.",
    ),
    "launcher": ("unasked", "Compiles for which no daemon was asked, by reason."),
}
_HITS: Final = ("local", "remote", "engine")
_MISSES: Final = (
    "local", "engine.executed", "engine.cached", "remote.executed", "remote.cached",
    "remote.fresh", "remote.agreed", "remote.pack",
)  # fmt: skip
# The farm or the engine had these: no compiler ran for them.
_FOUND: Final = frozenset(
    {"engine.cached", "remote.cached", "remote.fresh", "remote.agreed", "remote.pack"}
)
# Single counters and gauges, with what one of their units is in the metric's.
_SINGLE: Final = {
    "saved.milliseconds": (
        "hpcc_client_saved_seconds_total",
        "Time of compilers that hits on this machine saved, at least.",
        0.001,
    ),
    "bytes.served": ("hpcc_client_served_bytes_total", "Bytes that hits wrote.", 1.0),
    "bytes.stored": ("hpcc_client_stored_bytes_total", "Bytes that were put into the cache.", 1.0),
    "store.evicted": ("hpcc_client_evicted_total", "Entries that made room for others.", 1.0),
}
_GAUGES: Final = {
    "since": (
        "hpcc_client_since_timestamp_seconds", "When counting began, since the epoch.",
    ),
    "store.size_bytes": ("hpcc_client_store_bytes", "What the private cache takes of the disk."),
    "store.entries": ("hpcc_client_store_entries", "Entries of the private cache."),
    "remote-cache.pending": (
        "hpcc_client_remote_cache_pending", "Results that wait to be uploaded.",
    ),
}  # fmt: skip
# Parts of other counters: since the daemon's start.
_LEFT_OUT: Final = frozenset({"remote-cache.daemon-done", "remote-cache.daemon-lost"})


class ClientMetrics:
    """All metrics of one user's cache. Each counter of `hpcc stats` is in exactly one of them."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        self._build = registry.gauge(
            "hpcc_build_info", "1, with the versions that run as labels.", "version", "python"
        )
        self._compiles = registry.counter(
            "hpcc_client_compiles_total",
            "Compiles that the cache was asked for, by outcome: hit (it was on this machine; source"
            " is who had made it), found (the farm or an engine had it), miss (a compiler was"
            " started; source is where). Those that failed, were given up or were not kept are"
            " misses, too.",
            "outcome",
            "source",
            most=len(_HITS) + len(_MISSES),
        )
        self._by_reason = {
            prefix: registry.counter(f"hpcc_client_{name}_total", text, "reason", most=_MAX_REASONS)
            for prefix, (name, text) in _BY_REASON.items()
        }
        self._remote_cache = registry.counter(
            "hpcc_client_remote_cache_total",
            "What a remote cache did, by result (found, absent, uploaded, refused, failed, …) and,"
            " where there is one, reason (docs/sharing.md).",
            "result",
            "reason",
            most=_MAX_REASONS,
        )
        self._events = registry.counter(
            "hpcc_client_events_total",
            "All other counters of `hpcc stats --json`, by name.",
            "event",
            most=_MAX_REASONS,
        )
        self._single = {
            name: (registry.counter(metric, text).of(), unit)
            for name, (metric, text, unit) in _SINGLE.items()
        }
        self._gauges = {
            name: registry.gauge(metric, text).of() for name, (metric, text) in _GAUGES.items()
        }
        self._limit = registry.gauge(
            "hpcc_client_store_limit_bytes",
            "What the private cache may take of the disk (cache.max_size_bytes).",
        ).of()

    def fill(self, counts: Mapping[str, int], limit_bytes: int) -> None:
        """Take the counters of `hpcc stats`."""
        self._build.of(__version__, platform.python_version()).set(1.0)
        self._limit.set(limit_bytes)
        for name, count in sorted(counts.items()):
            if name in _LEFT_OUT:
                continue
            if name in self._gauges:
                self._gauges[name].set(count)
            elif name in self._single:
                number, unit = self._single[name]
                number.add(count * unit)
            else:
                metric, values = self._place(name)
                metric.of(*values).add(count)

    def _place(self, name: str) -> tuple[Metric[Number], Values]:
        """Return the metric of a counter, and its labels there."""
        kind, _, rest = name.partition(".")
        if kind == "hit" and rest in _HITS:
            return self._compiles, ("hit", rest)
        if kind == "miss" and rest in _MISSES:
            return self._compiles, ("found" if rest in _FOUND else "miss", rest)
        if rest and kind in self._by_reason:
            return self._by_reason[kind], (rest,)
        if rest and kind == "remote-cache":
            result, _, reason = rest.partition(".")
            return self._remote_cache, (result, reason)
        return self._events, (name,)


def client_text(
    counts: Mapping[str, int], limit_bytes: int, labels: tuple[tuple[str, str], ...] = ()
) -> str:
    """Return the counters in Prometheus' text format; each series has `labels` as well."""
    metrics = ClientMetrics()
    metrics.fill(counts, limit_bytes)
    return exposition(metrics.registry, metrics.registry.ask(), constant=labels).decode()


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say in which form, and where to."""
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument(
        "--format",
        choices=("text", "json", "prometheus"),
        default="text",
        help="text (default), json, or prometheus: for the textfile collector of its node exporter,"
        " with all counts since the cache was made, whatever --reset did",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write to a file that every user may read, and that is whole at any time",
    )
    parser.add_argument(
        "--label",
        metavar="NAME=VALUE",
        type=_parse_label,
        action="append",
        default=[],
        help="with prometheus: a label of each series, for a machine with several users of hpcc",
    )


def _parse_label(text: str) -> tuple[str, str]:
    match = _LABEL.fullmatch(text)
    if match is None or match[1] in _TAKEN or not match[2].isprintable():
        raise argparse.ArgumentTypeError(
            f"not a label: {text[:40]!r}; write for example runner=ci-1. These names are taken:"
            f" {', '.join(sorted(_TAKEN))}"
        )
    return match[1], match[2]


def check_labels(args: argparse.Namespace) -> tuple[tuple[str, str], ...]:
    """Return the labels that a command line gives to each series.

    Raises:
        CallerError: one comes twice, there are too many, or the format has no labels.
    """
    labels: list[tuple[str, str]] = args.label
    if len({name for name, _ in labels}) < len(labels) or len(labels) > _MAX_LABELS:
        raise CallerError(f"--label: at most {_MAX_LABELS}, each name once", reason="usage")
    if labels and args.format != "prometheus":
        raise CallerError("--label needs --format prometheus", reason="usage")
    return tuple(labels)


def write_for_others(path: Path, text: str) -> None:
    """Replace a file that other users may read; they see the old one or the new one.

    Raises:
        CallerError: it cannot be written, or is not a plain file.
    """
    with chosen_file(path, mode=_MODE) as file:
        if sys.platform != "win32":
            os.fchmod(file.fileno(), _MODE)  # the umask of a cron job may forbid it
        file.write(text.encode())
