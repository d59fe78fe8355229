"""The files that a finished compile read, by the method that was chosen before it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from hpcc.cache.base.files import FileMemo, Listing
from hpcc.cache.base.outputs import read_output
from hpcc.cache.base.uncacheable import UncacheableError, absolute, all_absolute
from hpcc.cache.inputs.discovery import ask_dependencies
from hpcc.cache.inputs.listed_names import parse_dependencies
from hpcc.cache.inputs.pragmas import is_preprocessor_blind
from hpcc.cache.key.interfaces import interfaces_of_map
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.results.interfaces import without_imports
from hpcc.cache.results.pending import Pending, signature_or_none
from hpcc.compilers.invocation.dependencies import Headers, Way
from hpcc.compilers.invocation.depfile import MAX_DEPFILE_BYTES
from hpcc.compilers.invocation.modules import (
    LISTING_SUFFIX,
    MAPPER_FLAG,
    UNIT_SUFFIX,
    ModuleList,
    mentions_modules,
    read_listing,
)
from hpcc.compilers.scan.includes import may_begin_with_macro
from hpcc.compilers.scan.scan import Hazard
from hpcc.compilers.scan.twins import TwinRule
from hpcc.core.reasons.uncacheable import UncacheableReason

# White space, `$$` and DEL are written as they are.
_ODD_NAME: Final = re.compile(rb'["\\\x00-\x1f\x7f]|\$\$')

SearchPath = Callable[[Prepared], tuple[bytes, ...]]


def read_depfile(prepared: Prepared, started_ns: int) -> bytes | None:
    """Return the user's depfile; None if the command line asks for none.

    Raises:
        UncacheableError: it is missing, too large, or this compile did not write it.
    """
    if prepared.depfile is None:
        return None
    data = read_output(prepared.depfile, started_ns=started_ns, limit=MAX_DEPFILE_BYTES)
    if data is None:
        raise UncacheableError(UncacheableReason.DEPFILE_UNREADABLE)
    return data


def files_read(
    pending: Pending,
    depfile: bytes | None,
    headers: Headers | None,
    search_path: SearchPath,
    memo: FileMemo,
) -> tuple[bytes, ...]:
    """Return the files that the compile read, as the compiler spells them.

    Raises:
        UncacheableError: the list is missing.
    """
    prepared = pending.prepared
    match pending.way:
        case Way.PRIVATE_FILE:
            assert pending.private_depfile is not None
            data = read_output(
                pending.private_depfile,
                started_ns=pending.started,
                limit=MAX_DEPFILE_BYTES,
            )
            if data is None:
                raise UncacheableError(UncacheableReason.DEPFILE_UNREADABLE)
            return _whole(pending, data, search_path, memo)
        case Way.USER_FILE:
            return _whole(pending, depfile or b"", search_path, memo)
        case Way.HEADERS:
            assert headers is not None
            return (
                *headers.names,
                *parse_dependencies(depfile or b""),
                *_omitted(pending, search_path),
            )
        case Way.SECOND_RUN:
            if prepared.invocation.has_modules:  # `-M` does not list what a unit declares
                raise UncacheableError(UncacheableReason.DEPFILE_UNREADABLE)
            asked = ask_dependencies(prepared, lambda: False, injected=prepared.injected)
            if is_preprocessor_blind(memo, prepared, asked):
                asked += ask_dependencies(
                    prepared, lambda: False, injected=prepared.injected, is_parsing=True
                )
            listed = (*asked, *(parse_dependencies(depfile) if depfile else ()))
            return without_imports(prepared, listed)
        case Way.OWN_TEXT:
            return ()


def _whole(
    pending: Pending, depfile: bytes, search_path: SearchPath, memo: FileMemo
) -> tuple[bytes, ...]:
    """Return the texts that a depfile lists, and those that it leaves out."""
    texts = _texts(pending, depfile, memo)
    prepared = pending.prepared
    more = _unlisted(prepared, texts, search_path, memo)
    return (*texts, *_behind_macro(prepared, memo), *more)


def _behind_macro(prepared: Prepared, memo: FileMemo) -> tuple[bytes, ...]:
    """Return what the preprocessor reads for a unit that may begin with `#include MACRO`.

    GCC takes a precompiled header in place of the first header, and lists neither. Of all other
    include lines hpcc knows the names, and looks for precompiled headers beside these.
    """
    found = memo.scan(prepared.source)
    if (
        found is None
        or Hazard.COMPUTED_INCLUDE not in found[1].hazards
        or prepared.family.twin_rule is not TwinRule.SECOND
    ):
        return ()
    question = may_begin_with_macro.__name__
    if memo.derived(prepared.source, found[0], question, may_begin_with_macro) is False:
        return ()
    return ask_dependencies(prepared, lambda: False, injected=prepared.injected)


def _texts(pending: Pending, depfile: bytes, memo: FileMemo) -> tuple[bytes, ...]:
    """Return the files of a list that are not compiled interfaces; note those that are.

    Raises:
        UncacheableError: it uses modules in another way than named ones, or the list is odd.
    """
    prepared = pending.prepared
    if prepared.invocation.has_modules:
        _check_modules(pending, depfile)
    names = parse_dependencies(depfile)
    if prepared.invocation.has_modules:
        cwd = prepared.cwd
        mapped = interfaces_of_map(memo, cwd, prepared.invocation).values()
        files = frozenset(all_absolute(cwd, tuple(mapped)))
        # A map that names modules is in the key.
        in_key = prepared.invocation.values(MAPPER_FLAG) if prepared.is_mapped else ()
        maps = all_absolute(cwd, in_key)
        every = tuple(path for path in all_absolute(cwd, names) if path not in maps)
        pending.interfaces = tuple(p for p in every if p in files or p.endswith(UNIT_SUFFIX))
        names = tuple(path for path in every if path not in pending.interfaces)
    return without_imports(prepared, names)


def _check_modules(pending: Pending, depfile: bytes) -> None:
    """Check that a compile with modules switched on declares and imports what can be kept.

    Raises:
        UncacheableError: without a list, it uses any; with one, it uses header units, or declares
            another module than its source seems to; or it did not write the list.
    """
    listing: ModuleList | None = ModuleList(b"", ())
    for path, before in zip(pending.prepared.side_paths, pending.side_before, strict=True):
        if path.endswith(LISTING_SUFFIX):
            data = read_output(path, started_ns=pending.started, limit=MAX_DEPFILE_BYTES)
            if data is None or signature_or_none(path) == before:
                raise UncacheableError(UncacheableReason.SIDE_OUTPUT_MISSING)
            listing = read_listing(data)
    is_known = (
        listing is not None
        and (not listing.is_empty or not mentions_modules(depfile))
        and listing.provides == pending.prepared.declares
    )
    if not is_known:
        # Its lines about modules cannot be parsed. The names only help to find a source's line.
        words = (word for word in depfile.split() if not word.endswith((b":", UNIT_SUFFIX)))
        pending.files = all_absolute(pending.prepared.cwd, tuple(words))
        raise UncacheableError(UncacheableReason.MODULES)


def _refuse_odd_names(prepared: Prepared, listed: Iterable[bytes], memo: FileMemo) -> None:
    r"""Refuse a list in which nvcc may have written another name than that of a file.

    It writes `a/b.h` for a file `a\b.h`, and `a` for `a"b.h`. That file is in a directory on the
    way to the listed name.

    Raises:
        UncacheableError: such a directory holds a name with such a character.
    """
    ways: set[bytes] = set()
    paths = all_absolute(prepared.cwd, tuple(listed))
    for path in paths:
        directory = path.rpartition(b"/")[0]
        while directory not in ways:
            ways.add(directory)
            directory = directory.rpartition(b"/")[0]
    for directory in ways:
        found = memo.listing(directory or b"/")
        if found is None:  # it may be entered, and not read
            is_odd = any(map(os.path.lexists, _with_backslashes(directory + b"/", paths)))
        else:
            is_odd = any(map(_ODD_NAME.search, found.names))
        if is_odd:
            raise UncacheableError(UncacheableReason.DEPFILE, directory)


def _with_backslashes(start: bytes, paths: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what paths below a directory may stand for, up to the first name with a backslash."""
    for path in (path for path in paths if path.startswith(start)):
        parts = path.removeprefix(start).split(b"/")
        for count in range(2, len(parts) + 1):
            yield start + b"\\".join(parts[:count])


def _unlisted(
    prepared: Prepared, listed: Iterable[bytes], search_path: SearchPath, memo: FileMemo
) -> tuple[bytes, ...]:
    """Return the headers that no depfile lists, and all that they may include.

    Each name counts in each place where there is a file.

    Raises:
        UncacheableError: one is not found, or cannot be read.
    """
    names = prepared.family.headers_unlisted(prepared.invocation)
    if not names:
        return ()
    _refuse_odd_names(prepared, listed, memo)
    search = tuple(absolute(prepared.cwd, d.rstrip(b"/") or b"/") for d in search_path(prepared))
    places = _Places(memo)
    found: dict[bytes, None] = {}
    # Those in quotes are looked for beside their header, too.
    waiting = [(b"", name) for name in names]
    asked: set[tuple[bytes, bytes]] = set()  # most names are in several headers
    while waiting:
        if (wanted := waiting.pop()) in asked:
            continue
        asked.add(wanted)
        home, name = wanted
        there = places.files((home, *search) if home else search, name)
        if not found and not there:
            raise UncacheableError(UncacheableReason.SEARCH_PATH)
        for path in (path for path in there if path not in found):
            found[path] = None
            scan = memo.scan(path)
            if scan is None:
                raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
            home = path.rpartition(b"/")[0]
            waiting += [(home, n) for n in scan[1].quoted]
            waiting += [(b"", n) for n in scan[1].angled]
    return tuple(found)


class _Places:
    """Looks for files in directories, each of which is listed once."""

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        self._listings: dict[bytes, Listing | None] = {}

    def files(self, directories: Iterable[bytes], name: bytes) -> list[bytes]:
        """Return the paths of the files with this name below these directories."""
        first = name.partition(b"/")[0]
        return [
            path
            for directory in directories
            if not self._lacks(directory, first) and os.path.isfile(path := directory + b"/" + name)
        ]

    def _lacks(self, directory: bytes, first: bytes) -> bool:
        if directory not in self._listings:
            self._listings[directory] = self._memo.listing(directory)
        listing = self._listings[directory]
        return listing is not None and listing.lacks(first)


def _omitted(pending: Pending, search_path: SearchPath) -> tuple[bytes, ...]:
    """Return what `-H` does not list: stdc-predef.h and the files of -include and -imacros."""
    prepared = pending.prepared
    search = search_path(prepared)
    found = []
    for name in (b"stdc-predef.h", *prepared.invocation.forced_includes):
        for directory in (prepared.cwd, *search):
            path = name if name.startswith(b"/") else directory + b"/" + name
            if not path.startswith(b"/"):
                path = prepared.cwd + b"/" + path
            if os.path.isfile(path):
                found.append(path)
                # Which of several the compiler takes is unknown here: all of them are inputs.
    return tuple(found)
