"""Finds which inputs changed before compiles that missed, in the records of `hpcc explain`.

A build has thousands of compiles, and each reads hundreds of headers. So this reads line by line,
and keeps for each output only the numbers of its last inputs.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any, Final

from hpcc.cache.results.records import RECORDS_NAME
from hpcc.cache.results.records_read import read_lines

_MAX_PATHS: Final = 50
# The year 5138.
_MAX_SECONDS: Final = 100_000_000_000

_File = tuple[str, str]
_Inputs = tuple[str, tuple[int, ...]]


def changed_inputs(
    cache_directory: str, wanted: Collection[tuple[str, int]]
) -> dict[tuple[str, int], tuple[str, ...]]:
    """Return the paths that changed before each of these compiles, where that is known.

    A compile is its output and when it ended, in milliseconds since the epoch. If no content
    changed, the paths are those that the compile before did not read.
    """
    outputs = {output for output, _ in wanted}
    files: dict[tuple[str, int], _File] = {}
    last: dict[str, _Inputs] = {}
    by_name: dict[str, tuple[str, _Inputs]] = {}
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for line in read_lines(os.path.join(cache_directory, RECORDS_NAME)):
        match line:
            case ["f", str(scope), int(number), str(path), str(digest)]:
                files[scope, number] = (path, digest)
            case ["c", str(name), int() | float() as at, dict(table)]:
                output, inputs = table.get("output"), _inputs_of(table)
                if not isinstance(output, str) or output not in outputs or inputs is None:
                    continue
                compile_ = _wanted(wanted, output, at)
                if compile_ is not None and output in last:
                    found[compile_] = _difference(files, last[output], inputs)
                last[output] = inputs
                by_name[name] = output, inputs
            case ["h", str(name), *_] if name in by_name:
                output, inputs = by_name[name]
                last[output] = inputs
            case _:
                continue
    return found


def _inputs_of(table: dict[str, Any]) -> _Inputs | None:
    scope, numbers = table.get("scope"), table.get("files")
    if not isinstance(scope, str) or not isinstance(numbers, list):
        return None
    return scope, tuple(n for n in numbers if type(n) is int)


def _wanted(wanted: Collection[tuple[str, int]], output: str, at: float) -> tuple[str, int] | None:
    """Return the compile that a line is about; a line's time is rounded."""
    if not 0 <= at < _MAX_SECONDS:  # a line can hold any number
        return None
    ms = round(at * 1000)
    return next(((output, near) for near in (ms, ms - 1, ms + 1) if (output, near) in wanted), None)


def _difference(
    files: dict[tuple[str, int], _File], before: _Inputs, now: _Inputs
) -> tuple[str, ...]:
    old, new = (
        dict(files[scope, n] for n in numbers if (scope, n) in files)
        for scope, numbers in (before, now)
    )
    changed = [path for path, digest in new.items() if old.get(path, digest) != digest]
    return tuple(changed or [path for path in new if path not in old])[:_MAX_PATHS]
