"""Tracked inputs: files that flags name (profiles, lists, programs), by content or by absence."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hpcc.cache.base.files import FileMemo, has_content
from hpcc.cache.base.manifest import Absence
from hpcc.cache.base.uncacheable import UncacheableError, absolute, is_fresh
from hpcc.cache.host.toolset import files_of_tools
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.messages import names_in_messages
from hpcc.cache.inputs.twins import with_trees
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.modules import (
    MAPPER_FLAG,
    MAX_MAP_BYTES,
    RELATIVE_UNITS,
    UNIT_SUFFIX,
    parts_of_unit,
    root_of_interfaces,
)
from hpcc.core.reasons.uncacheable import UncacheableReason

_NONE: frozenset[bytes] = frozenset()


def with_files_of_flags(
    closure: Closure,
    prepared: Prepared,
    search: tuple[bytes, ...],
    *,
    memo: FileMemo,
    started_ns: int,
    messages: bytes = b"",
) -> Closure:
    """Add the files that flags and messages make the compiler look for.

    `search` is the include path, `messages` all that the compiler printed.

    Raises:
        UncacheableError: one of them changed during the compile, is special or is behind a link.
    """
    request = prepared.request
    tools = files_of_tools(
        prepared.invocation,
        prepared.family,
        request.compiler,
        request.env,
        request.cwd,
        search=search,
    )
    shown = names_in_messages(memo, prepared, closure, messages)
    names = (*prepared.looked_for, *tools)
    roots = prepared.family.installation_roots(prepared.invocation)
    closure = with_trees(closure, (absolute(request.cwd, root) for root in roots))
    names = (*names, *shown)
    closure = with_names(closure, names, memo=memo, cwd=request.cwd, started_ns=started_ns)
    return _with_header_units(closure, prepared, search)


def with_names(
    closure: Closure, names: Sequence[bytes], *, memo: FileMemo, cwd: bytes, started_ns: int
) -> Closure:
    """Add files by content where they exist, and the absence of those that do not.

    Raises:
        UncacheableError: one of them changed during the compile, is special or is behind a link.
    """
    if not names:
        return closure
    files = dict(closure.files)
    absences: list[Absence] = []
    for path in dict.fromkeys(absolute(cwd, name) for name in names):
        digest = digest_if_quiet(memo, path, started_ns)
        if digest is not None:
            files[path] = digest
        else:
            absences.append(absence_of(path))
    return replace(
        closure,
        files=tuple(files.items()),
        absences=(*closure.absences, *absences),
        plain={},
        part=None,
    )


def _with_header_units(closure: Closure, prepared: Prepared, search: tuple[bytes, ...]) -> Closure:
    """Add the absence of each header unit that would take the place of a header.

    All names that the compiler may ask for count: of files that were read, of those that a guard
    skipped (`Closure.existing`), and of all that may appear in directories of the search path.
    Below the root of units, most of these names end at their first part.

    Raises:
        UncacheableError: there is a header unit, or the map is of another form.
    """
    if not prepared.invocation.has_modules:
        return closure
    files, cwd = dict(closure.files), prepared.cwd
    known = files | {response.path: response.digest for response in prepared.responses}
    module_map: bytes | None = None
    for name in prepared.invocation.values(MAPPER_FLAG):
        module_map = _content(absolute(cwd, name), known)
    below = root_of_interfaces(module_map)
    if below is None:
        path = absolute(cwd, prepared.invocation.values(MAPPER_FLAG)[0])
        raise UncacheableError(UncacheableReason.HEADER_UNIT, path)
    root = absolute(cwd, below).rstrip(b"/").removesuffix(b"/.") or b"/"
    relative = root.rstrip(b"/") + b"/" + RELATIVE_UNITS
    if not os.path.isdir(root):
        absences = [absence_of(relative)]
    elif os.path.lexists(relative):
        raise UncacheableError(UncacheableReason.HEADER_UNIT, relative)
    else:
        units = {parts_of_unit(path): True for path in (*files, *closure.existing)}
        directories = {parts_of_unit(absolute(cwd, path)): False for path in search}
        absences = _absent_units(root, {**directories, **units, (RELATIVE_UNITS,): False})
    return replace(closure, absences=(*closure.absences, *absences), plain={}, part=None)


def _content(path: bytes, files: Mapping[bytes, bytes]) -> bytes:
    """Return the content of a small file that is an input."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_MAP_BYTES + 1)
    except OSError as error:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED, path) from error
    if len(data) > MAX_MAP_BYTES:
        raise UncacheableError(UncacheableReason.HEADER_UNIT, path)
    if hashlib.sha256(data).digest() != files.get(path):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
    return data


def _absent_units(root: bytes, names: Mapping[tuple[bytes, ...], bool]) -> list[Absence]:
    """Return what keeps header units with these names below `root` from existing.

    `names` are path components, with True for the name of a header, else of a directory.

    Raises:
        UncacheableError: one exists, or a link may become a directory that has one.
    """
    found: list[Absence] = []
    pending = [(root, names)]
    while pending:
        directory, names = pending.pop()
        prefix = directory.rstrip(b"/") + b"/"
        units: set[bytes] = set()
        below: dict[bytes, dict[tuple[bytes, ...], bool]] = {}
        for (first, *rest), is_header in ((n, h) for n, h in names.items() if n):
            if is_header and not rest:
                units.add(first + UNIT_SUFFIX)
            else:
                below.setdefault(first, {})[tuple(rest)] = is_header
        for unit in units:
            if os.path.lexists(prefix + unit):
                raise UncacheableError(UncacheableReason.HEADER_UNIT, prefix + unit)
        missing: set[bytes] = set()
        for name, its in below.items():
            if os.path.isdir(prefix + name):
                pending.append((prefix + name, its))
            elif os.path.islink(prefix + name):
                raise UncacheableError(UncacheableReason.DIRECTORY_LINK, prefix + name)
            else:
                missing.add(name)
        if units or missing:
            found.append(Absence(directory, frozenset(units), frozenset(missing)))
    return found


def digest_if_quiet(memo: FileMemo, path: bytes, started_ns: int) -> bytes | None:
    """Return a file's SHA-256; None for a directory and for a missing file.

    Raises:
        UncacheableError: it changed since `started_ns`, or is special.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return None
    if not has_content(status):
        raise UncacheableError(UncacheableReason.SPECIAL_INPUT)
    digest = memo.digest(path)
    # The stat is from after the read: if it is old, the file is unchanged since the compile began.
    if digest is None or is_fresh(os.stat(path), started_ns):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    return digest


def absence_of(path: bytes) -> Absence:
    """Return the absence that keeps `path` from being a file: its name or a directory's."""
    path = path.rstrip(b"/")
    if os.path.isdir(path):
        parent, _, base = path.rpartition(b"/")
        return Absence(parent or b"/", frozenset({base}), _NONE)
    is_whole = True
    while True:
        parent, _, base = path.rpartition(b"/")
        parent = parent or b"/"
        if os.path.isdir(parent) and base:
            if os.path.islink(path):
                # Its target may change.
                raise UncacheableError(UncacheableReason.DIRECTORY_LINK)
            return Absence(parent, frozenset({base}) if is_whole else _NONE, frozenset({base}))
        if parent == path or not base:
            raise UncacheableError(UncacheableReason.ODD_INPUT)
        path, is_whole = parent, False
