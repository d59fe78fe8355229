"""`hpcc stats`: the counters of the private cache."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.cli.cache.client_metrics import (
    add_output_options,
    check_labels,
    client_text,
    write_for_others,
)
from hpcc.cli.cache.refusal import latest_refusals, summed_up
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import CallerError, NotFoundError
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.fallback import LOCAL_SLOT, FallbackReason
from hpcc.core.reasons.private import PrivateReason
from hpcc.core.reasons.reason import Reason
from hpcc.core.reasons.remote_cache import RefusedEntry, RefusedPack
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.files.whole import Sync, write_whole
from hpcc.ports import SystemClock

if TYPE_CHECKING:
    from hpcc.cache.results.records_read import CompileRecord
    from hpcc.store.private import PrivateStore

_BASELINE: Final = "stats-baseline.json"
_GAUGES: Final = frozenset(
    {
        *("since", "store.size_bytes", "store.entries"),
        *(f"remote-cache.{name}" for name in ("pending", "daemon-done", "daemon-lost")),
    }
)
_HITS: Final = (
    ("hit.local", "local results"),
    ("hit.remote", "results of the farm's image, kept here"),
    ("hit.engine", "results of the engine (foreign/unknown), kept here"),
    ("miss.engine.cached", "the engine's cache (foreign/unknown)"),
    ("miss.remote.cached", "the farm's cache"),
    ("miss.remote.fresh", "the farm's cache, made in a fresh guest"),
    ("miss.remote.agreed", "the farm's cache, equal in guests of several people"),
    ("miss.remote.pack", "a pack that was pulled, with results of the farm"),
)
_MISSES: Final = (
    ("miss.local", "compiled here"),
    ("miss.engine.executed", "compiled by the engine (foreign/unknown)"),
    ("miss.remote.executed", "compiled on the farm"),
)

_MISSED: Final = {
    "new-command": "this command had no result yet",
    "inputs-changed": "a source or header changed",
    "evicted": "the result had been removed",
    "names-elsewhere": "another directory has it, with `__FILE__` in it: a .hpcc shares it",
    "directory-elsewhere": "another directory has it, and its name is in it (`-g`): a .hpcc shares",
    "unproved": "compiled to compare it with another checkout's result",
}
_REMOTE_CACHE: Final = {
    "found": "fetched, and the inputs were the same",
    "pack-found": "in a pack that was pulled, and the inputs were the same",
    "pack-not-allowed": "in a pack, but the tenant or its worker takes no uses of packs",
    "pack-other-inputs": "in a pack that was pulled, as a result of the farm for other inputs",
    "pack-pulled": "packs pulled in the background",
    "pack-absent": "commits for which there was no pack to pull",
    "absent": "asked, and it had nothing",
    "other-inputs": "it had only results for other headers",
    "no-keys": "not asked: no key counts for the checkout (hpcc cache status)",
    "skipped": "not asked: it did not work a moment before",
    "uploaded": "results uploaded",
    "unchanged": "not uploaded: it had the same result",
}
_REFUSED: Final[Mapping[str, type[Reason]]] = {
    "refused": RefusedEntry,
    "pack-refused": RefusedPack,
}
_UNASKED: Final = {
    "no-daemon": "no daemon was running, and a new one was not ready in time",
    "daemon-left-alone": "it hung or could not start a moment before",
    "silent-daemon": "it did not answer in time",
    "lost-daemon": "the connection ended before the answer",
    "other-version": "it was of another version",
    "long-request": "more arguments than the daemon takes, or no working directory",
}
# Not reasons: every request is counted here, and each of them that was a replay.
_FRONT_TOTALS: Final = frozenset({"requests", "replayed"})
_FRONT: Final = {
    "lost.launcher": "the launcher ended before its answer, as in a build that is interrupted",
    "failed.internal-error": "a fault of hpcc, which daemon.log names",
    "refused.foreign-user": "a process of another user",
    "refused.malformed-frame": "a process that is not a launcher",
    "refused.other-version": "a launcher of another version of hpcc",
    **{f"exec.{reason.value}": reason.text for reason in BypassReason},
}
_ODD: Final = (
    ("miss.failed", "failed compiles"),
    ("miss.abandoned", "compiles given up"),
    ("dedup.waited", "waited for an equal compile"),
    ("store.corrupt", "damaged entries removed"),
    ("store.evicted", "entries evicted"),
    ("store.disk-full", "not stored: disk full"),
    ("store.write-error", "not stored: cannot write"),
    ("store.too-large", "not stored: too large"),
    ("build.bad-traceparent", "malformed TRACEPARENT"),
    ("build.bad-name", "unusable HPCC_BUILD"),
    ("build.bad-run", "unusable variables of CI"),
    ("build.bad-facts", "malformed facts of a build"),
    ("traces.dropped", "spans that OTLP did not take"),
    ("builds.report-failed", "reports of builds not taken"),
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `hpcc stats`."""
    stats = subparsers.add_parser(
        "stats",
        help="show hits, misses and bypasses with their reasons",
        description=_stats.__doc__,
    )
    add_output_options(stats)
    stats.add_argument("--reset", action="store_true", help="set all counters to zero")
    stats.set_defaults(handler=_stats)


def _stats(args: argparse.Namespace) -> int:
    """Show the counters since the last reset. This also works without a daemon."""
    paths = Paths.from_env(os.environ)
    form, labels = "json" if args.json else args.format, check_labels(args)
    counts = current_counts(paths)
    if args.reset:
        _write_baseline(paths, counts)
        emit("the counters are reset")
        return 0
    limit = load_settings(paths.config_file).cache.max_size_bytes
    if form == "prometheus":
        text = client_text(counts, limit, labels)
    elif form == "json":
        text = json.dumps(_since_reset(paths, counts), indent=1, sort_keys=True) + "\n"
    else:
        text = "\n".join(stats_lines(_since_reset(paths, counts), limit, _refusals(paths))) + "\n"
    if args.output is not None:
        write_for_others(args.output, text)
    else:
        emit(text, end="")
    return 0


def _refusals(paths: Paths) -> dict[str, CompileRecord]:
    from hpcc.cache.results.records_read import read_records  # late: as below

    return latest_refusals(read_records(os.fspath(paths.cache)))


def current_counts(paths: Paths) -> dict[str, int]:
    """Return the counters: from the daemon, or from its files if it is not running."""
    # Late: the daemon's package is not needed for --help.
    from hpcc.cache.base.counters import COUNTERS_NAME, read_counters
    from hpcc.cache.fallbacks import read_fallbacks
    from hpcc.daemon.client import query

    try:
        answer = query(paths, "stats")
    except NotFoundError:
        counts = read_counters(os.fspath(paths.cache / COUNTERS_NAME))
        for name, value in read_fallbacks(os.fspath(paths.run)).items():
            counts[name] = counts.get(name, 0) + value
        store = private_store(paths)
        return {
            **counts,
            "store.size_bytes": store.size_bytes,
            "store.entries": store.entries,
        }
    counters = {f"front.{k}": v for k, v in _numbers(answer.get("front")).items()}
    return counters | _numbers(answer.get("counters"))


def _numbers(table: object) -> dict[str, int]:
    if not isinstance(table, dict):
        return {}
    return {str(k): v for k, v in table.items() if type(v) is int}


def _since_reset(paths: Paths, counts: dict[str, int]) -> dict[str, int]:
    from hpcc.cache.base.counters import read_counters  # late: as above

    baseline = read_counters(os.fspath(paths.cache / _BASELINE))
    if not baseline:
        return counts
    result = {
        name: value if name in _GAUGES else max(0, value - baseline.get(name, 0))
        for name, value in counts.items()
    }
    result["since"] = baseline.get("since", counts.get("since", 0))
    return {name: value for name, value in result.items() if value or name in _GAUGES}


def _write_baseline(paths: Paths, counts: dict[str, int]) -> None:
    text = json.dumps({**counts, "since": int(SystemClock().now())}, sort_keys=True)
    baseline = paths.cache / _BASELINE
    try:
        write_whole(baseline, text.encode(), sync=Sync.NONE, mode=0o666, makes_parent=True)
    except OSError as error:
        raise CallerError(f"cannot write in {paths.cache}: {error.strerror}") from error


def stats_lines(
    counts: dict[str, int],
    max_size_bytes: int,
    refusals: Mapping[str, CompileRecord] | None = None,
) -> list[str]:
    """Render the counters for a person. `refusals` are the last refused compiles by counter."""
    refusals = refusals or {}
    hits = sum(counts.get(name, 0) for name, _ in _HITS)
    misses = sum(counts.get(name, 0) for name, _ in _MISSES)
    began = counts.get("since", 0)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began)) if began else "never used"
    lines = [f"{'since':<12}{since}"]
    total = hits + misses
    rate = f"  ({100 * hits / total:.1f} % of {total} cacheable compiles)" if total else ""
    lines.append(f"{'hits':<12}{hits}{rate}")
    lines += _rows([(text, counts.get(name, 0)) for name, text in _HITS])
    lines += _rows([("of these made in another checkout", counts.get("hit.shared", 0))])
    lines += _rows([("of these signed by another machine", counts.get("hit.signed", 0))])
    lines += _rows([("of these for another output or directory", counts.get("hit.content", 0))])
    lines += _rows(
        [("of these after an edit that the object does not show", counts.get("hit.comments", 0))]
    )
    lines.append(f"{'misses':<12}{misses}")
    lines += _rows([(text, counts.get(name, 0)) for name, text in _MISSES])
    lines += _rows([("of these while the farm was full (local slots)", counts.get(LOCAL_SLOT, 0))])
    lines += _section(counts, "missed.", "reasons of misses", _MISSED)
    title = "compiled, but the result was not kept"
    lines += _section(counts, "uncacheable.", title, _texts(UncacheableReason), refusals=refusals)
    title = "not shared with other checkouts"
    lines += _section(counts, "private.", title, _texts(PrivateReason))
    lines += _section(
        counts, "fallback.", "compiled here instead of on the farm", _texts(FallbackReason)
    )
    title = "not for the cache: the compiler ran unchanged"
    lines += _section(counts, "bypass.", title, _texts(BypassReason), refusals=refusals)
    lines += remote_rows(counts)
    lines += _section(counts, "launcher.", "compiled without asking the daemon", _UNASKED)
    lines += _section(counts, "front.", "not even looked up", _FRONT, leave_out=_FRONT_TOTALS)
    for name, title in _ODD:
        if counts.get(name):
            lines.append(f"{title:<30}{counts[name]}")
    saved = counts.get("saved.milliseconds", 0)
    if saved:
        lines.append(f"{'time saved':<12}{_duration(saved / 1000)} of compiling, at least")
    lines.append(
        f"{'store':<12}{human(counts.get('store.size_bytes', 0))} of {human(max_size_bytes)}, "
        f"{counts.get('store.entries', 0)} entries"
    )
    lines.append(
        f"{'bytes':<12}{human(counts.get('bytes.served', 0))} served from the cache, "
        f"{human(counts.get('bytes.stored', 0))} put into it"
    )
    return lines


def remote_rows(counts: dict[str, int]) -> list[str]:
    """Render what a remote cache did, with a title; nothing if there is none."""
    rows = _rows([(text, counts.get(f"remote-cache.{w}", 0)) for w, text in _REMOTE_CACHE.items()])
    for kind, text in (
        ("refused", "an entry was refused"),
        ("pack-refused", "a pack was refused"),
        ("pack-failed", "no pack was moved"),
        ("failed", "it failed"),
        ("lost", "a result was not uploaded"),
    ):
        prefix = f"remote-cache.{kind}."
        found = {n.removeprefix(prefix): v for n, v in counts.items() if n.startswith(prefix)}
        words = _texts(_REFUSED[kind]) if kind in _REFUSED else {}
        shown = ((name, words.get(name, name)) for name in sorted(found))
        rows += _rows([(f"{text}: {word}", found[name]) for name, word in shown])
    return ["remote cache", *rows] if rows else []


def _rows(rows: list[tuple[str, int]]) -> list[str]:
    return [f"  {value:>8}  {text}" for text, value in rows if value]


def _section(
    counts: dict[str, int],
    prefix: str,
    title: str,
    words: Mapping[str, str],
    *,
    leave_out: frozenset[str] = frozenset(),
    refusals: Mapping[str, CompileRecord] | None = None,
) -> list[str]:
    """Return a title and a row for each counter. With `refusals`, place and remedy follow a row."""
    rows = [(n.removeprefix(prefix), v) for n, v in counts.items() if n.startswith(prefix) and v]
    rows = sorted((row for row in rows if row[0] not in leave_out), key=lambda r: (-r[1], r[0]))
    lines = [title] if rows else []
    for name, value in rows:
        lines += _rows([(f"{name}: {words[name]}" if name in words else name, value)])
        if refusals is not None:
            lines += summed_up(prefix + name, refusals.get(prefix + name))
    return lines


def _texts(kind: type[Reason]) -> dict[str, str]:
    return {reason.value: reason.text for reason in kind}


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def human(size_bytes: int) -> str:
    """Return a size with its unit."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004 - binary units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def private_store(paths: Paths) -> PrivateStore:
    """Return this user's store, as another process than the daemon uses it."""
    # Late: reads the whole directory, and its package pulls in the worker's stores.
    from hpcc.store.private import STORE_NAME, PrivateStore

    cache = load_settings(paths.config_file).cache
    return PrivateStore(
        os.fspath(paths.cache / STORE_NAME),
        max_size_bytes=cache.max_size_bytes,
        max_entry_bytes=cache.max_entry_bytes,
        now=SystemClock().now,
    )
