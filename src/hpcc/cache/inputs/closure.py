"""From the files a compiler says it read to a set of inputs that is safe to look up by.

The compiler names what it found; the include lines of those files say what it looked for, and so
which names must stay absent. Every directory of the search path counts, whatever its rank: that is
a superset which needs no knowledge of how a compiler orders and prunes its path.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError, absolute, is_fresh
from hpcc.cache.inputs.closure_types import Closure, ClosureRequest
from hpcc.cache.inputs.lookup import Lookup
from hpcc.compilers.scan.scan import HAZARD_REASONS, Hazard, Scan, scan_arguments
from hpcc.core.reasons.uncacheable import UncacheableReason

MAX_FILES: Final = 50_000


def find_closure(memo: FileMemo, request: ClosureRequest) -> Closure:
    """Check every file and work out the absent names.

    Raises:
        UncacheableError: something in the closure makes the result one that cannot be kept.
    """
    paths = tuple(dict.fromkeys(absolute(request.cwd, p) for p in request.files))
    if len(paths) > MAX_FILES:
        raise UncacheableError(UncacheableReason.TOO_MANY_FILES)
    in_arguments = scan_arguments(request.arguments)
    _refuse_hazards(in_arguments, request)
    plain: dict[bytes, int] = {}
    scans = {path: _examine(memo, path, request, plain) for path in paths}
    scans = _with_alias_uses(memo, scans, request)
    doubts = request.doubts | in_arguments.hazards
    for _, scan in scans.values():
        if scan.hazards is not Hazard.NONE:  # as nearly always: combining flags costs a microsecond
            doubts |= scan.hazards
    lookup = Lookup(memo, request, plain)
    lookup.add_all({path: scan for path, (_, scan) in scans.items()})
    lookup.add_absent(request.absent)
    files = {path: digest for path, (digest, _) in scans.items()}
    if doubts is not Hazard.NONE:
        names: tuple[bytes, ...] = ()
        if doubts & request.resolvable:
            names = request.look_again(doubts & request.resolvable)
            if not unchanged_since(paths, request.started_ns):
                raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
        if names or Hazard.EMBED in doubts:
            lookup.add_data(names, scans)
    for path in lookup.data:
        if path not in files:
            files[path] = _digest_of_data(memo, path, request)
    found = tuple(files.items())
    refuse_twins(memo, found, lookup.existing)
    return Closure(found, tuple(lookup.present), lookup.absences(), tuple(lookup.existing), plain)


def _examine(
    memo: FileMemo, path: bytes, request: ClosureRequest, plain: dict[bytes, int]
) -> tuple[bytes, Scan]:
    found = memo.examine(path)
    if found is None:
        _check_quiet(path, request)
        raise UncacheableError(UncacheableReason.INPUT_VANISHED)
    digest, scan, status, is_plain = found
    if is_plain:
        plain[path] = status.st_dev
    # A stat from after it was read: what is quiet then has been so since the compile began.
    if is_fresh(status, request.started_ns):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    _refuse_hazards(scan, request)
    return digest, scan


def _with_alias_uses(
    memo: FileMemo, scans: dict[bytes, tuple[bytes, Scan]], request: ClosureRequest
) -> dict[bytes, tuple[bytes, Scan]]:
    """Add what is asked through macros for `__has_include`, which any of the files may use."""
    aliases = tuple(sorted({name for _, scan in scans.values() for name in scan.aliases}))
    if not aliases:
        return scans
    found = {}
    for path, (digest, scan) in scans.items():
        uses = memo.alias_uses(path, digest, aliases)
        if uses is None:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
        _refuse_hazards(uses, request)
        if uses.questions:
            scan = replace(scan, questions=(*scan.questions, *uses.questions))  # noqa: PLW2901 - the same file's, completed
        found[path] = (digest, scan)
    return found


def _digest_of_data(memo: FileMemo, path: bytes, request: ClosureRequest) -> bytes:
    digest = memo.digest(path)
    _check_quiet(path, request)
    if digest is None:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED)
    return digest


def _check_quiet(path: bytes, request: ClosureRequest) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED) from error
    if not stat.S_ISREG(status.st_mode):
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


def refuse_twins(
    memo: FileMemo,
    files: tuple[tuple[bytes, bytes], ...],
    existing: Mapping[bytes, os.stat_result],
) -> None:
    """Refuse `#pragma once` in two files of one content.

    GCC takes them for one file when their times are equal too, Clang when they are one inode; the
    second is then opened, skipped and named nowhere, so that nothing would watch it.
    """
    read = {digest: path for path, digest in files}
    twins = [(path, digest) for path, digest in files if read[digest] != path]
    for path, status in existing.items():
        digest = memo.digest_at(path, status)
        if digest is not None and digest in read:
            twins.append((path, digest))
    for path, digest in twins:
        if memo.may_be_read_once(path, digest) is False:
            continue
        if os.path.realpath(read[digest]) != os.path.realpath(path) or _has_link(path):
            raise UncacheableError(UncacheableReason.TWIN_HEADERS)


def _has_link(path: bytes) -> bool:
    return os.path.realpath(path) != os.path.normpath(path)


def unchanged_since(paths: Iterable[bytes], started_ns: int) -> bool:
    """Tell whether none of these files may have changed since."""
    try:
        return not any(is_fresh(os.stat(path), started_ns) for path in paths)
    except OSError:
        return False
