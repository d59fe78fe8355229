"""Tracked inputs: files that flags name (profiles, lists, programs), by content or by absence."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace

from hpcc.cache.base.files import FileMemo, has_content
from hpcc.cache.base.manifest import Absence
from hpcc.cache.base.uncacheable import UncacheableError, absolute, is_fresh
from hpcc.cache.host.toolset import files_of_tools
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.messages import names_in_messages
from hpcc.cache.inputs.twins import with_trees
from hpcc.cache.key.prepare import Prepared
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
    return with_names(closure, names, memo=memo, cwd=request.cwd, started_ns=started_ns)


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
        digest = _digest(memo, path, started_ns)
        if digest is not None:
            files[path] = digest
        else:
            absences.append(_absence(path))
    return replace(
        closure,
        files=tuple(files.items()),
        absences=(*closure.absences, *absences),
        plain={},
        part=None,
    )


def _digest(memo: FileMemo, path: bytes, started_ns: int) -> bytes | None:
    """Return a file's SHA-256; None for a directory and for a missing file."""
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


def _absence(path: bytes) -> Absence:
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
