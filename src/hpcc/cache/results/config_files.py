"""The configuration files of an analyser that count for a result, by content or by absence.

Problem: clang-tidy reads `.clang-tidy` of the source's directory, or of the nearest directory above
that has one, and the next above if that file inherits. Some checks do the same for each header. No
list tells which of these files were read, and one that appears later changes the findings.

Rule: the file counts in each directory above each file that was read. Directories count under every
name that clang-tidy may give them: as spelled, without `..`, with links resolved, and below `$PWD`.

Example: src/a.cc includes inc/h.h. The inputs are `.clang-tidy` in src, in inc, in their parent and
in each directory above it, up to the root. Where there is none, there must be none later. So does
`.clang-format` in src and above, for the place of an include that a finding proposes.

What must never happen: a configuration was read that is not there any more. It must have been there
for a moment between the two looks of hpcc. Then its directory is younger than the start, or the
kernel reported the name (`base.name_watch`). Without a watch a younger directory is a doubt.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.name_watch import MAX_DIRECTORIES, NameWatch
from hpcc.cache.base.stamps import StampClock
from hpcc.cache.base.uncacheable import UncacheableError, absolute, is_fresh
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.flag_inputs import with_files_of_flags, with_names
from hpcc.cache.inputs.twins import links_to
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.invocation import Product
from hpcc.core.reasons.uncacheable import UncacheableReason

if TYPE_CHECKING:
    from hpcc.cache.results.pending import Pending


def watch_configs(
    prepared: Prepared, clock: StampClock, directories: Iterable[bytes] = ()
) -> NameWatch | None:
    """Watch the directories above the source, before the run; None if no such file counts.

    Also those above files that flags name, and above `directories`, where headers probably are:
    in a parallel build others write there. Of a program that lists nothing, the directories in
    which it looks for headers.

    Only local file systems report every change.
    """
    family, invocation = prepared.family, prepared.invocation
    if family.unlisted(invocation, ()) is not None:
        own = (posixpath.dirname(prepared.source), prepared.cwd)
        places = (*own, *(absolute(prepared.cwd, d) for d in invocation.include_dirs))
        plain = dict.fromkeys(map(posixpath.normpath, places))
        return NameWatch(place for place in plain if clock.device(place) is not None)
    if not family.config_name:
        return None
    names = (absolute(prepared.cwd, n) for n in prepared.family.names_watched(prepared.invocation))
    places = (*directories_above(prepared, (prepared.source,)), *map(posixpath.dirname, names))
    # The most important first: the number of watched directories is limited.
    named = (absolute(prepared.cwd, n) for n in prepared.looked_for)
    likely = tuple(directories)[:MAX_DIRECTORIES]
    below = (posixpath.join(absolute(prepared.cwd, d or b"/"), b".") for d in likely)
    places = (*places, *directories_above(prepared, (*named, *below)))
    return NameWatch(place for place in places if clock.device(place) is not None)


def with_unlisted(
    closure: Closure, pending: Pending, search: tuple[bytes, ...], memo: FileMemo
) -> Closure:
    """Add what no depfile lists: files of flags, and configuration files.

    `search` is the include path.

    Raises:
        UncacheableError: one of them changed during the run, is special or names more than checks,
            or a finding shows what no key holds.
    """
    prepared, started_ns = pending.prepared, pending.started
    closure = with_files_of_flags(
        closure, prepared, search, memo=memo, started_ns=started_ns, messages=pending.messages
    )
    family, invocation = prepared.family, prepared.invocation
    if family.unlisted(invocation, ()) is not None:
        # It may have read a file that was removed since.
        absent = (
            posixpath.join(absence.directory, name)
            for absence in closure.absences
            for name in absence.files | absence.directories
        )
        _check_absent(absent, pending.watch, started_ns)
        if family.shows_more(pending.messages):
            raise UncacheableError(UncacheableReason.ANALYSER_FAILED)
    if invocation.product is Product.CUDA:
        # nvcc hashes the real path of the source, and names symbols by it. A directory on the way,
        # or the source itself, may become a link later.
        return replace(closure, twins=(*closure.twins, *links_to((prepared.source,))))
    return _with_configs(closure, pending, memo) if family.config_name else closure


def _with_configs(closure: Closure, pending: Pending, memo: FileMemo) -> Closure:
    """Add the configuration files above each file that was read."""
    prepared, started_ns = pending.prepared, pending.started
    family, invocation = prepared.family, prepared.invocation
    base = family.config_name
    if family.shows_more(pending.messages):
        raise UncacheableError(UncacheableReason.ANALYSER_USER)
    read = tuple(path for path, _ in closure.files)
    above = tuple(posixpath.join(d, base) for d in directories_above(prepared, read))
    named = tuple(absolute(prepared.cwd, n) for n in family.config_files(invocation))
    watched = tuple(absolute(prepared.cwd, n) for n in family.names_watched(invocation))
    names = (*above, *style_files(prepared), *watched)
    known = {absolute(prepared.cwd, name) for name in prepared.looked_for}
    more = [name for name in names if name not in known]
    closure = with_names(closure, more, memo=memo, cwd=prepared.cwd, started_ns=started_ns)
    files = dict(closure.files)
    for path in (*above, *named):
        if path not in files:
            continue
        has_more = memo.derived(path, files[path], "analyser-config", family.config_names_more)
        if has_more is None:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
        if has_more:
            raise UncacheableError(UncacheableReason.ANALYSER_CONFIG, path)
    if not files.keys().isdisjoint(watched):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    missing = tuple(path for path in names if path not in files)
    _check_absent(missing, pending.watch, started_ns)
    return _with_real_names(closure, read)


def _check_absent(paths: Iterable[bytes], watch: NameWatch | None, started_ns: int) -> None:
    """Check that none of these files was there for a moment since the start."""
    places: dict[bytes, set[bytes]] = {}
    for path in paths:
        directory, _, name = path.rpartition(b"/")
        places.setdefault(directory or b"/", set()).add(name)
    fresh = [place for place in places if _is_fresh(place, started_ns)]
    if not fresh:
        return
    names = frozenset(name for place in fresh for name in places[place])
    quiet = frozenset[bytes]() if watch is None else watch.quiet(names)
    for place in fresh:
        if place not in quiet:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, place)


def _is_fresh(directory: bytes, started_ns: int) -> bool:
    try:
        return is_fresh(os.stat(directory), started_ns)
    except OSError:
        return False  # it has no file, and `with_names` made its absence an input


def _with_real_names(closure: Closure, paths: Iterable[bytes]) -> Closure:
    """Make it an input where links on the way to a file lead: outputs may name the real file."""
    links = tuple(p for p in paths if os.path.realpath(p) != posixpath.normpath(p))
    return replace(closure, twins=(*closure.twins, *links_to(links)))


def style_files(prepared: Prepared) -> tuple[bytes, ...]:
    """Return the names of files with a style for the source, whether they exist or not."""
    names = prepared.family.style_names
    above = directories_above(prepared, (prepared.source,)) if names else ()
    return tuple(posixpath.join(d, name) for d in above for name in names)


def directories_above(prepared: Prepared, paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the directories above absolute paths, under each name that may count."""
    own = {posixpath.dirname(path) for path in paths}
    spelled = own | {posixpath.normpath(d) for d in own} | {os.path.realpath(d) for d in own}
    pwd, cwd = prepared.request.env.get(b"PWD", b""), prepared.cwd.rstrip(b"/")
    if pwd.startswith(b"/") and pwd != prepared.cwd:
        below = [d for d in spelled if d == cwd or d.startswith(cwd + b"/")]
        spelled |= {posixpath.normpath(pwd + d[len(cwd) :]) for d in below}
    found: dict[bytes, None] = {}
    for start in sorted(spelled):
        directory = start
        while directory not in found:
            found[directory] = None
            directory = posixpath.dirname(directory)
    return tuple(found)
