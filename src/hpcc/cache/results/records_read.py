"""Reads the records of `hpcc.cache.results.records`; skips torn and damaged lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from hpcc.cache.key.command_outline import CommandOutline, command_of_table
from hpcc.cache.results.records import FILE_NAME, MAX_FILE_BYTES, OLD_NAME, RECORDS_NAME

# The year 9999.
_MAX_SECONDS: Final = 253_402_000_000
# One batch may exceed the limit of a file.
_MAX_READ_BYTES: Final = 4 * MAX_FILE_BYTES
_NOT_OF_HITS: Final = frozenset({"reason", "fallback", "ms", "culprit", "remote_cache", "command"})
_LINE_ITEMS: Final = {"f": (5,), "c": (4,), "h": (3, 4)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRecord:
    """One compile. `files` maps each input's path to its SHA-256 in hex; empty if unknown.

    `outcome`: `hit.local`, `hit.remote`, `miss.local`, `miss.remote.executed`,
    `miss.remote.cached`, `miss.remote.fresh`, `miss.remote.agreed`, `miss.remote.pack`,
    `miss.failed`, `uncacheable` or `bypass`; `reason` says why, `culprit`
    which file and line it is about. `private` says why the result is not shared with other
    checkouts; it is also "" without a marker. `root` is the project's root of a compile that a farm
    did, with the way it was found. `build` is the build's identity; "" in older records. `signer`
    is the id of the key that signed a hit's result, `remote_cache` what it had for a miss. Then
    `command` outlines the command, and `checkout` is the root of the marker. `action` is the digest
    of a farm's action, also for hits of its result.
    """

    at: float
    outcome: str
    reason: str
    fallback: str
    private: str = ""
    root: str = ""
    culprit: str = ""
    build: str = ""
    signer: str = ""
    remote_cache: str = ""
    action: str = ""
    checkout: str = ""
    command: CommandOutline | None = None
    output: str
    sources: tuple[str, ...]
    argv: tuple[str, ...]
    cwd: str
    compiler: str
    identity: str
    image: str
    key: str
    result: str
    duration_ms: int
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def read_lines(directory: str) -> Iterator[list[Any]]:
    """Yield the well-formed lines, oldest first."""
    for name in (OLD_NAME, FILE_NAME):
        try:
            with open(os.path.join(directory, name), "rb") as file:
                data = file.read(_MAX_READ_BYTES)
        except OSError:
            continue
        for text in data.splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            is_list = isinstance(line, list) and line
            if is_list and len(line) in _LINE_ITEMS.get(str(line[0]), ()):
                yield line


def read_records(cache_directory: str) -> list[CompileRecord]:
    """Return all recorded compiles, oldest first."""
    files: dict[tuple[str, int], tuple[str, str]] = {}
    known: dict[str, dict[str, Any]] = {}
    records: list[CompileRecord] = []
    for line in read_lines(os.path.join(cache_directory, RECORDS_NAME)):
        match line:
            case ["f", str(scope), int(number), str(path), str(digest)]:
                files[scope, number] = (path, digest)
            case ["c", str(name), int() | float() as at, dict(table)] if _is_time(at):
                known[name] = table
                records.append(_record(at, table, files))
            case ["h", str(name), int() | float() as at, *build] if name in known and _is_time(at):
                table = {**known[name], "outcome": "hit." + _kind(known[name])}
                table = {k: v for k, v in table.items() if k not in _NOT_OF_HITS}
                if build:
                    table["build"] = build[0]
                records.append(_record(at, table, files))
            case _:
                continue
    return records


def _is_time(at: float) -> bool:
    """Return whether a calendar has this time; a line can hold any number."""
    return 0 <= at < _MAX_SECONDS


def _kind(table: dict[str, Any]) -> str:
    return "remote" if table.get("image") or "remote" in str(table.get("outcome")) else "local"


def _record(
    at: float, table: dict[str, Any], files: dict[tuple[str, int], tuple[str, str]]
) -> CompileRecord:
    env = table.get("env")
    cost = table.get("ms")
    return CompileRecord(
        at=float(at),
        outcome=_text(table, "outcome"),
        reason=_text(table, "reason"),
        fallback=_text(table, "fallback"),
        private=_text(table, "private"),
        root=_text(table, "root"),
        culprit=_text(table, "culprit"),
        build=_text(table, "build"),
        signer=_text(table, "signer"),
        remote_cache=_text(table, "remote_cache"),
        action=_text(table, "action"),
        checkout=_text(table, "checkout"),
        command=command_of_table(table.get("command")),
        output=_text(table, "output"),
        sources=_texts(table, "sources"),
        argv=_texts(table, "argv"),
        cwd=_text(table, "cwd"),
        compiler=_text(table, "compiler"),
        identity=_text(table, "identity"),
        image=_text(table, "image"),
        key=_text(table, "key"),
        result=_text(table, "result"),
        duration_ms=cost if type(cost) is int else 0,
        env={str(k): str(v) for k, v in env.items()} if isinstance(env, dict) else {},
        files=dict(files[n] for n in _numbers(table) if n in files),
    )


def _text(table: dict[str, Any], name: str) -> str:
    value = table.get(name, "")
    return value if isinstance(value, str) else ""


def _texts(table: dict[str, Any], name: str) -> tuple[str, ...]:
    value = table.get(name)
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _numbers(table: dict[str, Any]) -> list[tuple[str, int]]:
    value, scope = table.get("files"), _text(table, "scope")
    return [(scope, n) for n in value if type(n) is int] if isinstance(value, list) else []
