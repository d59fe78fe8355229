"""The files that a compile read, from cl's reports: `/sourceDependencies` and `/showIncludes`.

Sources: cpp-docs, "/sourceDependencies" and "/showIncludes". Clang's HeaderIncludeGen.cpp writes
the latter as cl does, in English only. The output of cl itself is not yet tested on Windows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from hpcc.compilers.invocation.depfile import MAX_DEPENDENCIES, MAX_DEPFILE_BYTES
from hpcc.core import CallerError

PROBE_OUTER: Final = "hpcc_probe_outer.h"
PROBE_INNER: Final = "hpcc_probe_inner.h"
PROBE_FILES: Final = {
    "hpcc_probe.c": f'#include "{PROBE_OUTER}"\n',
    PROBE_OUTER: f'#include "{PROBE_INNER}"\n',
    PROBE_INNER: "",
}
"""Compiled once with `-showIncludes`, these teach the words that stand before a file's name."""

_MAX_PREFIX_BYTES: Final = 256
_VERSION: Final = re.compile(r"1\.[0-9]{1,3}")
# A cache cannot store these with the object: each refers to another compile's output.
_FOREIGN: Final = ("ProvidedModule", "PCH", "ImportedModules", "ImportedHeaderUnits")


def _refused(why: str) -> CallerError:
    return CallerError(f"the compiler's list of files {why}", reason="msvc-dependencies")


def read_source_dependencies(data: bytes) -> tuple[str, ...]:
    """Return the files of a `/sourceDependencies` report: first the source, then its includes.

    Raises:
        CallerError: too large, of a version that is not 1.x, of another shape, or of a compile with
            modules or a precompiled header.
    """
    if len(data) > MAX_DEPFILE_BYTES:
        raise _refused("is too large")
    try:
        report = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _refused("is not JSON") from error
    content = report.get("Data") if isinstance(report, dict) else None
    if not isinstance(content, dict) or not _VERSION.fullmatch(str(report.get("Version"))):
        raise _refused("is of another version")
    for name in _FOREIGN:
        if content.get(name):
            raise _refused(f"has {name}")
    includes = content.get("Includes")
    if not isinstance(includes, list) or len(includes) >= MAX_DEPENDENCIES:
        raise _refused("names no files, or too many")
    return tuple(_name(item) for item in (content.get("Source"), *includes))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _name(item: object) -> str:
    if not isinstance(item, str) or not item or "\0" in item:
        raise _refused("has an entry that is not a name")
    try:
        item.encode()
    except UnicodeEncodeError as error:
        raise _refused("has a name that is not Unicode") from error
    return item


def learn_show_includes(output: bytes) -> bytes:
    """Return the prefix before each file's name, from the output of the probe's compile.

    It works for all languages and code pages. A line is a text, a space for each level, and the
    name. So the lines of the outer and the inner header are equal up to where the inner one has an
    additional space.

    Raises:
        CallerError: the output does not have exactly one such pair.
    """
    lines = _lines(output)
    outer = [line for line in lines if line.endswith(PROBE_OUTER.encode())]
    inner = [line for line in lines if line.endswith(PROBE_INNER.encode())]
    if len(outer) != 1 or len(inner) != 1:
        raise _refused("is not recognisable in its messages")
    common = _common(outer[0], inner[0])
    prefix = common[:-1]
    is_deeper = inner[0][len(common) : len(common) + 1] == b" "
    if not (common.endswith(b" ") and is_deeper and 0 < len(prefix) <= _MAX_PREFIX_BYTES):
        raise _refused("is not recognisable in its messages")
    return prefix


def _common(one: bytes, other: bytes) -> bytes:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return one[:count]


def read_show_includes(
    output: bytes, prefix: bytes, *, encoding: str
) -> tuple[tuple[str, ...], bytes]:
    """Return the files that the output names, each once, and the output without those lines.

    `encoding` is the code page of the compiler's output. If a source's own message imitates such a
    line, it adds a file and removes none.

    Raises:
        CallerError: too much output, or a name that is not valid in this code page.
    """
    if len(output) > MAX_DEPFILE_BYTES:
        raise _refused("is too large")
    names: dict[str, None] = {}
    rest: list[bytes] = []
    for line in output.splitlines(keepends=True):
        name = _included(line, prefix)
        if name is None:
            rest.append(line)
            continue
        try:
            names[_name(name.decode(encoding))] = None
        except UnicodeDecodeError as error:
            raise _refused(f"has a name that is not of {encoding}") from error
    if len(names) > MAX_DEPENDENCIES:
        raise _refused("names too many files")
    return tuple(names), b"".join(rest)


def _included(line: bytes, prefix: bytes) -> bytes | None:
    if not line.startswith(prefix + b" "):
        return None
    return line[len(prefix) :].lstrip(b" ").rstrip(b"\r\n") or None


def _lines(output: bytes) -> Sequence[bytes]:
    if len(output) > MAX_DEPFILE_BYTES:
        raise _refused("is too large")
    return [line.rstrip(b"\r") for line in output.split(b"\n")]
