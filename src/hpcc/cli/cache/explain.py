"""`hpcc explain` and `hpcc inspect`: why a compile missed, and what a stored result contains."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.cli.cache.checkout import home_directory
from hpcc.cli.cache.farm_says import farm_lines
from hpcc.cli.cache.links import link_lines
from hpcc.cli.cache.nearest import MAX_ASKED, nearest_lines
from hpcc.cli.cache.refusal import explained, stayed
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import CallerError, HpccError, IntegrityError, NotFoundError
from hpcc.core.reasons.fallback import LOCAL_SLOT, FallbackReason
from hpcc.core.reasons.private import PrivateReason
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.obs.text import plain
from hpcc.ports import SystemClock

if TYPE_CHECKING:
    from hpcc.cache.results.records_read import CompileRecord

_MAX_SHOWN: Final = 20
_MAX_OUTPUTS: Final = 10
_MIN_PREFIX: Final = 4
_OUTCOMES: Final = {
    "hit.local": "a hit: the result was in the cache",
    "hit.remote": "a hit: the result of the farm's image was in the cache",
    "miss.local": "a miss: compiled here and stored",
    "hit.engine": "a hit: a result of the engine, isolation foreign/unknown, was in the cache",
    "miss.engine.executed": "a miss: compiled by the engine, isolation foreign/unknown, and stored",
    "miss.engine.cached": "a miss here, found in the engine's cache, isolation foreign/unknown",
    "miss.remote.executed": "a miss: compiled on the farm and stored",
    "miss.remote.cached": "a miss here, found in the farm's cache",
    "miss.remote.fresh": "a miss here, found in the farm's cache: a fresh guest made it",
    "miss.remote.agreed": "a miss here, found in the farm's cache: guests of several people agree",
    "miss.remote.pack": "a miss here, found in a pack: a worker of the farm signed it",
    "miss.failed": "the compile failed, and failures are not stored",
    "uncacheable": "compiled here and not stored",
    "bypass": "not for the cache: the compiler ran unchanged",
}
_MISSED: Final = {
    "new-command": "this command has no result yet",
    "inputs-changed": "a file it reads changed, or a header appeared earlier on the search path",
    "evicted": "its result was removed, by `hpcc clean` or to make room",
    "names-elsewhere": "another directory has the result, whose object holds the whole name of a"
    " file (`__FILE__`). A `.hpcc` at the root of the project shares it: docs/cookbook.md",
    "directory-elsewhere": "another directory has a result of this source and command, whose object"
    " holds the name of that directory, as with `-g`. A `.hpcc` at the root of the project makes"
    " names relative, and other clones hit: docs/cookbook.md",
    "unproved": "it is the first use here of a precompiled header or interface that another clone"
    " made, too. It was compiled to compare the result",
}
_REMOTE_CACHE: Final = {
    "absent": "had nothing",
    "other-inputs": "had only results for other headers",
    "asked-before": "was asked for it less than a minute before",
    "no-keys": "was not asked: no key counts for this checkout (hpcc cache status)",
    "away": "was not asked: it did not work a moment before",
    "found": "was asked by an equal compile, and had nothing for this one",
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    explain = subparsers.add_parser(
        "explain",
        help="show why the last compile of a file was a hit or a miss",
        description=_explain.__doc__,
    )
    explain.add_argument("file", metavar="FILE|OUTPUT", help="a source, or an object file")
    explain.set_defaults(handler=_explain)
    inspect = subparsers.add_parser(
        "inspect", help="show what a stored result contains", description=_inspect.__doc__
    )
    inspect.add_argument(
        "what", metavar="DIGEST|OUTPUT", help="a digest or its start, or an object"
    )
    inspect.set_defaults(handler=_inspect)


def _records(paths: Paths) -> list[CompileRecord]:
    from hpcc.cache.results.records_read import read_records
    from hpcc.daemon.client import query

    with contextlib.suppress(HpccError):
        query(paths, "stats")  # makes a running daemon write the records it has in memory
    return read_records(os.fspath(paths.cache))


def _explain(args: argparse.Namespace) -> int:
    """Show the outcome of the last compile of FILE and what changed since the one before."""
    paths = Paths.from_env(os.environ)
    records = _records(paths)
    histories = _histories(records, args.file)
    links = link_lines(args.file, paths)
    if not histories and not links:
        raise NotFoundError(
            f"no record of a compile of {args.file}; compile it through hpcc, or see `hpcc stats`"
        )
    blocks = [explain_lines(history) for history in histories[-_MAX_OUTPUTS:]]
    for block, history in zip(blocks[-MAX_ASKED:], histories[-MAX_ASKED:], strict=True):
        block.extend(nearest_lines(history[-1], paths))
        block.extend(farm_lines(history[-1], paths))
    blocks += [links] if links else []
    emit(plain("\n\n".join("\n".join(block) for block in blocks)))
    if len(histories) > _MAX_OUTPUTS:
        emit(f"\n… and {len(histories) - _MAX_OUTPUTS} more outputs; name one of them")
    return 0


def _histories(records: Sequence[CompileRecord], name: str) -> list[list[CompileRecord]]:
    """Group the compiles to or from this file by output, the latest output last."""
    wanted = {os.path.abspath(name), os.path.realpath(name)}  # noqa: PTH100 - paths as records spell them
    chosen = [r for r in records if r.output in wanted] or [
        r for r in records if not wanted.isdisjoint(r.sources)
    ]
    found: dict[str, list[CompileRecord]] = {}
    for record in chosen:
        place = record.output or " ".join(record.sources)
        found[place] = [*found.pop(place, ()), record]
    return list(found.values())


def explain_lines(history: Sequence[CompileRecord]) -> list[str]:
    """Explain the last of these compiles of one output."""
    last = history[-1]
    lines = [
        f"{last.output or ' '.join(last.sources)}",
        f"  last compile  {_when(last.at)}: {_OUTCOMES.get(last.outcome, last.outcome)}",
    ]
    refusal = explained(last)
    lines += refusal
    if last.reason and not refusal:
        lines.append(f"  because       {_MISSED.get(last.reason, last.reason)}")
    if last.fallback == LOCAL_SLOT:
        lines.append("  local slot    all places of the farm were taken")
    elif last.fallback:
        lines += stayed("not on farm", FallbackReason, last.fallback)
    if root := last.root or _present_root(last):
        lines.append(f"  root          {root}")
    if last.signer:
        lines.append(f"  signed by     key {last.signer} of the remote cache")
    if last.remote_cache:
        lines.append(f"  remote cache  {_remote_cache(last.remote_cache)}")
    if last.private:
        lines += stayed("not shared", PrivateReason, last.private)
    lines += _what_it_was(last)
    if len(history) == 1:
        return [*lines, "  no record of an earlier compile"]
    before = history[-2]
    changes = changes_between(before, last)
    lines.append(f"  changes since the compile before ({_when(before.at)}):")
    if not changes:
        lines.append("    none that hpcc recorded")
    return [*lines, *(f"    {change}" for change in changes)]


def _remote_cache(word: str) -> str:
    kind, _, reason = word.partition(".")
    refused = RefusedEntry.of_word(reason) if kind == "refused" else None
    return f"refused an entry: {refused.text}" if refused else _REMOTE_CACHE.get(word, word)


def _what_it_was(record: CompileRecord) -> list[str]:
    lines = [f"  build         {record.build}"] if record.build else []
    if record.duration_ms:
        lines.append(f"  took          {record.duration_ms / 1000:.2f} s")
    if record.result:
        lines.append(f"  result        {record.result[:16]}  (hpcc inspect {record.result[:16]})")
    return lines


def _present_root(record: CompileRecord) -> str:
    """Return the root that a farm's compile of this source would have now; "" without one."""
    if sys.platform == "win32" or not record.sources:
        return ""
    from hpcc.cache.root.project_root import find_project_root

    source, cwd = os.fsencode(record.sources[0]), os.fsencode(record.cwd)
    root = find_project_root(source, cwd, home_directory())
    return "" if root is None else f"{os.fsdecode(root.path)} ({root.way})"


def changes_between(before: CompileRecord, now: CompileRecord) -> list[str]:
    """Return every difference between two compiles of one output, with both values."""
    changes = []
    for name, old, new in (
        ("compiler", before.compiler, now.compiler),
        ("directory", before.cwd, now.cwd),
        ("image", before.image, now.image),
    ):
        if old != new:
            changes.append(f"{name}: was {old or '(none)'}, now {new or '(none)'}")
    if before.identity and now.identity and before.identity != now.identity:
        changes.append(
            f"content of compiler {now.compiler}: was {before.identity[:16]}, "
            f"now {now.identity[:16]}"
        )
    changes += _flag_changes(before.argv[1:], now.argv[1:])
    changes += [
        f"variable {name}: was {_quoted(before.env.get(name))}, now {_quoted(now.env.get(name))}"
        for name in sorted(before.env.keys() | now.env.keys())
        if before.env.get(name) != now.env.get(name)
    ]
    return changes + _file_changes(before.files, now.files)


def _flag_changes(old: Sequence[str], new: Sequence[str]) -> list[str]:
    if old == new:
        return []
    gone = _without(old, new)
    added = _without(new, old)
    if not gone and not added:
        return ["flags: the same, in another order"]
    return [f"flags: was {' '.join(gone) or '(none)'}, now {' '.join(added) or '(none)'}"]


def _without(left: Sequence[str], right: Sequence[str]) -> list[str]:
    rest = list(right)
    kept = []
    for item in left:
        if item in rest:
            rest.remove(item)
        else:
            kept.append(item)
    return kept


def _file_changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    if not old or not new:
        return []  # a failed or bypassed compile has no list of files
    changes = [
        f"content of {path}: was {old[path][:16]}, now {digest[:16]}"
        for path, digest in new.items()
        if path in old and old[path] != digest
    ]
    changes += [f"now reads {path}" for path in new if path not in old]
    changes += [f"no longer reads {path}" for path in old if path not in new]
    if len(changes) > _MAX_SHOWN:
        return [*changes[:_MAX_SHOWN], f"… and {len(changes) - _MAX_SHOWN} more files"]
    return changes


def _quoted(value: str | None) -> str:
    return "(not set)" if value is None else repr(value)


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _inspect(args: argparse.Namespace) -> int:
    """Show a stored result: its parts with sizes and digests, and when it was stored.

    For a manifest (the digest of a command): its results and the files of each.
    """
    from hpcc.cache.results.inspect import describe_entry
    from hpcc.store.private import STORE_NAME, PrivateStore

    paths = Paths.from_env(os.environ)
    records = _records(paths)
    cache = load_settings(paths.config_file).cache
    directory = paths.cache / STORE_NAME
    store = PrivateStore(
        os.fspath(directory),
        max_size_bytes=cache.max_size_bytes,
        max_entry_bytes=cache.max_entry_bytes,
        now=SystemClock().now,
    )
    digest = _digest_of(args.what, records, directory)
    path = directory / digest[:2] / digest[2:]
    used = path.stat().st_mtime if path.exists() else 0.0
    payload = store.get(bytes.fromhex(digest))
    if payload is None:
        raise NotFoundError(f"{digest[:16]} is no longer in the store, or was damaged")
    try:
        kind, parts = describe_entry(payload)
    except IntegrityError as error:
        raise NotFoundError(f"{digest[:16]} was written by another version of hpcc") from error
    made = [r for r in records if r.result == digest and r.outcome.startswith("miss.")]
    emit(f"{kind:<10}{digest}")
    if made:
        emit(f"{'output':<10}{plain(made[-1].output)}\n{'kept':<10}{_when(made[-1].at)}")
        emit(f"{'command':<10}{plain(' '.join(made[-1].argv)[:500])}")
        emit(f"{'inputs':<10}{len(made[-1].files)} files (hpcc inspect {made[-1].key[:16]})")
    emit(f"{'last used':<10}{_when(used)}\n{'size':<10}{len(payload)} bytes")
    for part in parts:
        size = f"{part.size_bytes:>12} bytes" if part.size_bytes >= 0 else ""
        emit(f"  {part.digest}{size}  {plain(part.name)}")
    return 0


def _digest_of(what: str, records: Sequence[CompileRecord], directory: Path) -> str:
    wanted = {os.path.abspath(what), os.path.realpath(what)}  # noqa: PTH100 - paths as records spell them
    for record in reversed(records):
        if record.output in wanted and record.result:
            return record.result
    text = what.lower()
    if len(text) < _MIN_PREFIX or len(text) > 64 or not set(text) <= set("0123456789abcdef"):  # noqa: PLR2004 - hex of SHA-256
        raise NotFoundError(f"no record of a stored result of {what}, and it is not a digest")
    shard = directory / text[:2]
    names = sorted(p.name for p in shard.iterdir()) if shard.is_dir() else []
    found = [text[:2] + name for name in names if name.startswith(text[2:])]
    if len(found) > 1:
        raise CallerError(f"{what} is the start of {len(found)} digests: write more digits")
    if not found:
        raise NotFoundError(f"no entry of the store has the digest {what}")
    return found[0]
