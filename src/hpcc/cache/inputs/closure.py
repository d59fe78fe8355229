"""From the files that a compiler read to the set of inputs that a later hit depends on.

Problem: a compiler lists the files it found. A hit also depends on the names it looked for and did
not find: a new header in an earlier directory would be included instead.

Rule: the inputs are

- every file the compiler read, by content, also by the name of a link that leads to it;
- every name that an include line or `__has_include` of those files could have found earlier: it
  must stay absent. Every directory of the search path counts, in any position. That is a superset,
  and it needs no knowledge of how a compiler orders and prunes its path (`inputs.lookup`);
- files that were found and not read, which must still exist where a source asked for them;
- files read as data (`#embed`, `.incbin`, names in flags), by content;
- with a precompiled header, that file and all that it was made from. Its macros act in the unit,
  and a header in it that a unit includes again is compared and skipped, in no list. So these files
  count as read, and so does every file that an include line finds.

Example: a.c includes "b.h" and the compiler read sub/b.h, with `-Iinc -Isub`. The inputs are a.c
and sub/b.h by digest; b.h must be absent beside a.c and in inc/, and b.h.gch in all of these.

What must never happen: a result is stored under inputs that it was not made from. Each file's stat
is taken after it was read and must be older than the compile; else the file counts as modified
during the compile. A source whose text leaves doubts (`Hazard`) is resolved by asking the compiler
again, or refused. Of two files of one content with `#pragma once` the compiler may skip one without
naming it: both are inputs, and so is their relation (`inputs.twins`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterable, Mapping
from functools import partial
from typing import Final

from hpcc.cache.base.files import FileMemo, has_content
from hpcc.cache.base.real_names import RealNames
from hpcc.cache.base.uncacheable import (
    UncacheableError,
    all_absolute,
    freshness,
    is_fresh,
    settled_ns,
)
from hpcc.cache.inputs.closure_types import Closure, ClosureRequest, MadeOf
from hpcc.cache.inputs.lookup import Lookup
from hpcc.cache.inputs.questions import names_asked
from hpcc.cache.inputs.twins import find_twins, links_to
from hpcc.compilers.scan.questions import Questions
from hpcc.compilers.scan.scan import HAZARD_REASONS, Hazard, Scan, scan_arguments
from hpcc.compilers.scan.twins import TwinRule
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.uncacheable import UncacheableReason

MAX_FILES: Final = 50_000
# Links to links in the directories beside links; a header that includes itself by a link has more.
_MAX_ROUNDS: Final = 8
# The names behind links that earlier compiles looked for, by the file to which they led.
_MAX_MET: Final = 4
_MET: Final[BoundedMemo[bytes, tuple[bytes, ...]]] = BoundedMemo(10_000)


def find_closure(memo: FileMemo, request: ClosureRequest) -> Closure:
    """Check every file, and return the inputs with the names that must stay absent.

    Raises:
        UncacheableError: a file changed, vanished or leaves a doubt; the result must not be stored.
    """
    paths = tuple(dict.fromkeys(all_absolute(request.cwd, request.files)))
    if len(paths) > MAX_FILES:
        raise UncacheableError(UncacheableReason.TOO_MANY_FILES)
    in_arguments = scan_arguments(request.arguments, request.macros)
    _refuse_hazards(in_arguments, request)
    plain: dict[bytes, int] = {}
    scans = _examine_all(memo, paths, request, plain)
    lookup, asked, links, made = _looked_up(memo, request, plain, scans, in_arguments.asked)
    doubts = request.doubts | in_arguments.hazards
    has_absolute = any(name.startswith(b"/") for _, name in asked)
    has_absolute = has_absolute or any(scan.has_absolute for _, scan in scans.values())
    for hazards in {scan.hazards for _, scan in scans.values()}:
        doubts |= hazards  # combining flags costs a microsecond
    lookup.add_absent(request.absent)
    files = {path: digest for path, (digest, _) in scans.items()}
    read = tuple(files) if lookup.precompiled else paths
    check = partial(_check_reproduced, made)
    if lookup.precompiled:
        if request.asks_preprocessor:
            check()
        if request.twin_rule is not TwinRule.INODE:  # Clang skips no file for its content
            _refuse_unlisted(paths, scans)
        more = (*lookup.precompiled, *lookup.existing)
        files |= {p: _digest_of_data(memo, p, request) for p in more if p not in files}
    names: tuple[bytes, ...] = ()
    if doubts is not Hazard.NONE:
        if doubts & request.resolvable:
            names = request.look_again(doubts & request.resolvable, read, check)
            if not unchanged_since(read, request.started_ns):
                raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
        if names or Hazard.EMBED in doubts:
            lookup.add_data(names, scans)
    files |= {p: _digest_of_data(memo, p, request) for p in lookup.data if p not in files}
    twins = find_twins(
        memo,
        tuple(files.items()),
        lookup.existing,
        request.twin_rule,
        may_all_be_once=Hazard.READ_ONCE in doubts,
    )
    files.update(twins.unread)
    return Closure(
        tuple(files.items()),
        tuple(lookup.present),
        lookup.absences(),
        tuple(lookup.existing),
        plain,
        twins=(*twins.relations, *links_to(links)),
        hazards=doubts,
        has_absolute=has_absolute,
        data=frozenset(lookup.data),
        precompiled=tuple(lookup.precompiled),
        names_data=bool(names or lookup.data),
    )


def _looked_up(
    memo: FileMemo,
    request: ClosureRequest,
    plain: dict[bytes, int],
    scans: dict[bytes, tuple[bytes, Scan]],
    in_arguments: Questions,
) -> tuple[Lookup, Collection[tuple[bool, bytes]], tuple[bytes, ...], Mapping[bytes, MadeOf]]:
    """Return the names that lead to these files, those of `__has_include`, and those of links.

    The last are the precompiled headers. Adds to the files those that a link leads to one of them,
    and those that precompiled headers were made of.
    """
    # The units of a project mostly find the same headers behind the same links.
    # A link that changes from here on is young when `check_places` looks at the way to each file.
    names, made = RealNames(), dict[bytes, MadeOf]()
    links = expected = _aliases_expected(names, scans)
    scans |= _examine_all(memo, expected, request, plain)
    for _ in range(_MAX_ROUNDS):
        macros = (*request.macros, *(macro for its in made.values() for macro in its.macros))
        asked = names_asked(memo, scans, in_arguments, request, macros)
        lookup = Lookup(memo, request, plain)
        lookup.add_all({path: scan for path, (_, scan) in scans.items()}, asked)
        if not lookup.unled.isdisjoint(expected):
            # This compile may not look for one of them, which is then no input.
            for path in expected:
                del scans[path]
            links, expected, made = (), (), {}
            continue
        if lookup.precompiled.keys() - made.keys():
            made = {path: _made_of(memo, path, request) for path in lookup.precompiled}
            scans |= _texts_of(memo, made, request, plain, scans)
            continue
        aliases = _aliases(names, lookup.existing, plain, scans)
        if not aliases:
            if links != expected:
                _remember(path for path in links if path not in lookup.unled)
            return lookup, asked, links, made
        links += aliases
        scans |= _examine_all(memo, aliases, request, plain)
    raise UncacheableError(UncacheableReason.TOO_MANY_FILES)


def _made_of(memo: FileMemo, header: bytes, request: ClosureRequest) -> MadeOf:
    """Return what a precompiled header was made of.

    Raises:
        UncacheableError: it is unknown.
    """
    digest = _digest_of_data(memo, header, request)
    made = request.made_from and request.made_from(header, digest)
    if made is None:
        raise UncacheableError(UncacheableReason.PCH, header)
    return made


def _texts_of(
    memo: FileMemo,
    precompiled: Mapping[bytes, MadeOf],
    request: ClosureRequest,
    plain: dict[bytes, int],
    scans: Mapping[bytes, tuple[bytes, Scan]],
) -> dict[bytes, tuple[bytes, Scan]]:
    """Return digest and scan of each file from which these precompiled headers were made.

    Raises:
        UncacheableError: one of them changed or vanished since.
    """
    found: dict[bytes, tuple[bytes, Scan]] = {}
    for made in precompiled.values():
        gone = next((path for path, _ in made.files if not os.path.exists(path)), None)
        if gone is not None:
            raise UncacheableError(UncacheableReason.PCH_STALE, gone)
        new = [path for path, _ in made.files if path not in scans and path not in found]
        found |= _examine_all(memo, new, request, plain)
        for path, its in made.files:
            if (found.get(path) or scans[path])[0] != its:
                raise UncacheableError(UncacheableReason.PCH_STALE, path)
    return found


def _check_reproduced(precompiled: Mapping[bytes, MadeOf]) -> None:
    """Check that the preprocessor reads the texts of these precompiled headers in their place.

    Raises:
        UncacheableError: it may read others, so that its answer says nothing about the compile.
    """
    for path, made in precompiled.items():
        if not made.is_reproduced():
            raise UncacheableError(UncacheableReason.PCH, path)


def _refuse_unlisted(paths: Iterable[bytes], scans: Mapping[bytes, tuple[bytes, Scan]]) -> None:
    """Refuse a unit that may include a header which no list and no include line names.

    `paths` are the files that GCC listed. A header that has the content of one in the precompiled
    header is skipped and not listed.

    Raises:
        UncacheableError: one of them includes what a macro stands for.
    """
    for path in paths:
        if path in scans and Hazard.COMPUTED_INCLUDE in scans[path][1].hazards:
            raise UncacheableError(UncacheableReason.PCH_INCLUDE, path)


def _aliases(
    names: RealNames,
    existing: Iterable[bytes],
    plain: Container[bytes],
    scans: Container[bytes],
) -> tuple[bytes, ...]:
    """Return those of the existing names that a link leads to a file of the closure.

    GCC finds a header of the system behind a link (`/opt/x/current`), and lists its real name where
    that is shorter. The compile depends on where the link leads, and looks for quoted names beside
    the link. So the file is an input by both names. `plain` are paths that are not links.
    """
    found: list[bytes] = []
    for path in existing:
        home, _, base = path.rpartition(b"/")
        real_home = names.of_directory(home)
        is_plain = path in plain
        if is_plain and real_home == home:
            continue
        real = os.path.join(real_home, base) if is_plain else names.of(path)
        # With `..` and without links it is one name in two spellings.
        if real in scans and real != os.path.normpath(path):
            found.append(path)
    return tuple(found)


def _aliases_expected(names: RealNames, scans: Collection[bytes]) -> tuple[bytes, ...]:
    """Return the names that earlier compiles met for these files, and that lead there now."""
    met = _MET.get
    found = [(path, name) for path in scans for name in met(path, ())]
    return tuple(name for path, name in found if name not in scans and names.of(name) == path)


def _remember(names: Iterable[bytes]) -> None:
    for name in names:
        file = os.path.realpath(name)
        _MET[file] = tuple({**dict.fromkeys(_MET.get(file, ())), name: None})[-_MAX_MET:]


def _examine_all(
    memo: FileMemo, paths: Iterable[bytes], request: ClosureRequest, plain: dict[bytes, int]
) -> dict[bytes, tuple[bytes, Scan]]:
    """Return digest and scan of each file; note the device of those that are not links."""
    # Nearly all files are headers that an earlier compile read: these cost one `lstat` each.
    lstat, digest_known, scan_known = os.lstat, memo.digest_known, memo.scan_known
    may_have_changed, settled = freshness(request.started_ns), settled_ns(request.started_ns)
    scans: dict[bytes, tuple[bytes, Scan]] = {}
    for path in paths:
        known = digest_known(path)
        if known is not None:
            try:
                status = lstat(path)
            except (OSError, ValueError):
                raise UncacheableError(UncacheableReason.INPUT_VANISHED) from None
            # As in `FileMemo.examine`: the stat of a link is never that of its file.
            if known[0] == (
                status.st_dev,
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            ):
                scan = scan_known(known[1])
                has_none = scan is not None and scan.hazards is Hazard.NONE
                is_old = status.st_ctime_ns < settled and status.st_mtime_ns < settled
                if scan is not None and has_none and (is_old or not may_have_changed(status)):
                    plain[path] = status.st_dev
                    scans[path] = known[1], scan
                    continue
        scans[path] = _examine(memo, path, request, plain)
    return scans


def _examine(
    memo: FileMemo, path: bytes, request: ClosureRequest, plain: dict[bytes, int]
) -> tuple[bytes, Scan]:
    found = memo.examine(path)
    if found is None:
        _check_quiet(path, request)
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    digest, scan, status, is_plain = found
    if is_plain:
        plain[path] = status.st_dev
    # The stat is from after the read: if it is old, the file is unchanged since the compile began.
    if is_fresh(status, request.started_ns):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    if scan.hazards is not Hazard.NONE:
        _refuse_hazards(scan, request)
    return digest, scan


def _digest_of_data(memo: FileMemo, path: bytes, request: ClosureRequest) -> bytes:
    digest = memo.digest(path)
    _check_quiet(path, request)
    if digest is None:
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    return digest


def _check_quiet(path: bytes, request: ClosureRequest) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED) from error
    if not has_content(status):
        raise UncacheableError(UncacheableReason.SPECIAL_INPUT)
    if is_fresh(status, request.started_ns):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)


def _refuse_hazards(scan: Scan, request: ClosureRequest) -> None:
    if scan.hazards is Hazard.NONE:
        return
    hazards = scan.hazards & ~request.resolvable
    if request.allow_date:
        hazards &= ~Hazard.DATE_OR_TIME
    if hazards:
        for hazard, reason in HAZARD_REASONS.items():
            if hazard in hazards:
                raise UncacheableError(reason)


def unchanged_since(paths: Iterable[bytes], started_ns: int) -> bool:
    """Tell whether all of these files exist and are unchanged since `started_ns`."""
    try:
        return not any(is_fresh(os.stat(path), started_ns) for path in paths)
    except OSError:
        return False
