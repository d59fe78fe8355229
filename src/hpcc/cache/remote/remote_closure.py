"""Finds the closure of a compile for a guest from the text of its sources.

The part of a closure that headers lead to is remembered for each set of names that a source
includes. One call of the engine then checks that no header and no directory has changed, so that
only the source has to be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import Absence, InputSet, Part, make_part
from hpcc.cache.base.twins import Twins, are_one_file_everywhere
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.source_tree import DiskTree
from hpcc.cache.inputs.system_names import SystemNames
from hpcc.cache.inputs.twins import find_twins
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.guest_paths import guest_path, is_under
from hpcc.cache.replay.engine import Engine, Outcome
from hpcc.cache.replay.engine import Plan as Checks
from hpcc.cache.replay.replay import NotPinnedError, Pins
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError, as_text
from hpcc.compilers.invocation.invocation import Language
from hpcc.compilers.scan.assembler import read_assembler
from hpcc.compilers.scan.include_closure import (
    IncludeClosure,
    Search,
    UnscannableError,
    include_closure,
    plain_directory,
)
from hpcc.compilers.scan.scan import Hazard, scan_arguments
from hpcc.compilers.scan.twins import TwinRule
from hpcc.compilers.spec.table import Effect
from hpcc.core import RemoteInput, SharedInputs
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.closure import ClosureReason
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.dispatch.remote_frames import encode_inputs

_MAX_PARTS: Final = 4_096
_MAX_PATHS: Final = 256
_NOBODY: Final = -1
_NONE: Final[frozenset[bytes]] = frozenset()
# A guest has only the files that it was sent, so its assembler can read no other.
_TOLERATED: Final = Hazard.OPAQUE_ASSEMBLY
_ASSEMBLER_DEBUG: Final = re.compile(rb"-g(?!0$).*|-Wa,(?!--noexecstack$).*")
_LINES: Final = "lines"
_LINE_DIRECTIVE: Final = re.compile(rb"\.(?:loc(?![\w$.])|file[ \t]+[\d$\\(])")


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """The files to send. `directories` (below `/src`) must exist even if they are empty.

    `components` are the directories in the names of includes; None if they are not known.
    """

    closure: Closure
    inputs: tuple[RemoteInput, ...]
    directories: tuple[str, ...] = ()
    shared: SharedInputs | None = None
    components: frozenset[bytes] | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """The files and absences that a source's includes lead to: `state`, with the files' `paths`.

    `checks` is a prepared plan that tells whether the state still holds. `encoded` are the inputs
    for the dispatcher, b"" if a file is too new for its stat to prove its size.
    """

    state: Part
    paths: frozenset[bytes]
    twins: tuple[Twins, ...]
    inputs: tuple[RemoteInput, ...]
    directories: tuple[str, ...]
    is_bound: bool
    components: frozenset[bytes]
    checks: object = None
    encoded: bytes = b""
    encoded_name: bytes = b""


class RemoteClosures:
    """Finds closures by text. Thread-safe: a race only does the work twice."""

    def __init__(
        self,
        memo: FileMemo,
        engine: Engine,
        system: SystemNames,
        search_path: Callable[[Prepared], tuple[bytes, ...]],
    ) -> None:
        self._memo, self._engine, self._system = memo, engine, system
        self._search_path = search_path
        self._parts: BoundedMemo[Hashable, _Part] = BoundedMemo(_MAX_PARTS)
        self._outside: BoundedMemo[Hashable, tuple[bytes, ...]] = BoundedMemo(_MAX_PATHS)

    def scan(
        self,
        prepared: Prepared,
        guest: GuestMap,
        extra: tuple[bytes, ...] = (),
        settled: Hazard = Hazard.NONE,
    ) -> RemoteFiles:
        """Find the closure; `extra` are further files that an earlier try showed to be needed.

        Hazards in `settled` do not matter, because the caller looks closer.

        Raises:
            UnscannableError: the closure cannot be found from the text.
            NotPortableError: a file must not be sent.
            UncacheableError: the compiler did not print its search path.
        """
        search = search_of(prepared, guest)
        source = plain_directory(prepared.source, os.path.islink)
        tolerated = _TOLERATED | settled
        if b"SOURCE_DATE_EPOCH" in prepared.request.env:
            tolerated |= Hazard.DATE_OR_TIME
        tree = self._tree(prepared, guest, tolerated)
        in_arguments = scan_arguments(prepared.invocation.arguments, search.macros)
        tree.check(in_arguments)
        includes = tree.includes(source)
        if prepared.invocation.language is Language.PLAIN_ASSEMBLER:
            check_assembler(prepared, self._memo, tree.digests[source])
        key = (
            search.root, search.cwd, search.chain, search.forced, search.macros, tree.system_dirs,
            tolerated, source.rpartition(b"/")[0], extra, includes, tree.makes_others_once,
            guest.base, guest.build,
        )  # fmt: skip
        bound = (key, tree.digests[source])
        part = self._known(key, source) or self._known(bound, source)
        if part is None:
            part = self._walk(source, search, prepared.family, guest, tree, extra)
            self._remember(bound if part.is_bound else key, part)
        files = ((source, tree.digests[source]), *part.state.files)
        own = remote_inputs(self._memo, files[:1], guest)
        at = bisect_left(part.inputs, own[0].path, key=lambda item: item.path)
        inputs = (*part.inputs[:at], *own, *part.inputs[at:])
        shared = None
        if part.encoded:
            text = self._memo.text(tree.digests[source])
            shared = SharedInputs(part.encoded, own, part.encoded_name, text)
        closure = Closure(files, (), part.state.absences, part=part.state, twins=part.twins)
        return RemoteFiles(closure, inputs, part.directories, shared, part.components)

    def _tree(self, prepared: Prepared, guest: GuestMap, tolerated: Hazard) -> DiskTree:
        search = self._search_path(prepared)
        key = (search, prepared.cwd, guest.root)
        outside = self._outside.get(key)
        if outside is None:
            dirs = (absolute(prepared.cwd, d) for d in search)
            plain = dict.fromkeys(map(posixpath.normpath, dirs))
            outside = tuple(d for d in plain if not is_under(d, guest.root))
            self._outside[key] = outside
        return DiskTree(
            self._memo,
            self._system,
            system_dirs=outside,
            tolerated=tolerated,
            family=prepared.family,
        )

    def _known(self, key: Hashable, source: bytes) -> _Part | None:
        part = self._parts.get(key)
        if part is None or source in part.paths:
            return None
        if part.checks is not None:
            if self._holds(part.checks):
                return part
        elif InputSet(part.state.files, (), part.state.absences, b"", twins=part.twins).holds(
            self._memo
        ):
            # Made when a header was too new: its stat may prove the content by now.
            checks = self._checks(part.state.files, part.state.absences)
            encoded = self._encoded(part.state.files, part.inputs)
            name = hashlib.sha256(encoded).digest()
            part = replace(part, checks=checks, encoded=encoded, encoded_name=name)
            self._remember(key, part)
            return part
        self._parts.pop(key, None)
        return None

    def _holds(self, checks: object) -> bool:
        return self._engine.replay(checks, _NOBODY) == Outcome.DONE

    def _remember(self, key: Hashable, part: _Part) -> None:
        self._parts[key] = part

    def _walk(
        self,
        source: bytes,
        search: Search,
        family: CompilerFamily,
        guest: GuestMap,
        tree: DiskTree,
        extra: tuple[bytes, ...],
    ) -> _Part:
        found = _include_closure((source, *extra), search, family, tree)
        digests = tuple((path, tree.digests[path]) for path in found.files)
        twins = find_twins(
            self._memo, digests, {}, family.twin_rule, may_all_be_once=tree.makes_others_once
        ).relations
        refuse_unlike_in_guest(twins)
        files = digests[1:]
        absences = _absences(found, tree)
        inputs = remote_inputs(self._memo, files, guest)
        encoded = self._encoded(files, inputs)
        passed = (d for d in found.passed if d != guest.root and guest.is_sent(d))
        return _Part(
            make_part(files, absences),
            frozenset(path for path, _ in files),
            twins,
            inputs,
            tuple(sorted(guest_path(guest.relative(d)) for d in passed)),
            found.is_bound,
            found.components,
            self._checks(files, absences),
            encoded,
            hashlib.sha256(encoded).digest(),
        )

    def _encoded(
        self, files: tuple[tuple[bytes, bytes], ...], inputs: tuple[RemoteInput, ...]
    ) -> bytes:
        sizes: dict[str, int] = {}
        for path, digest in files:
            signature = self._memo.signature(path, digest)
            if signature is None:
                return b""  # changed too recently for its size to be certain
            sizes[digest.hex()] = signature[2]
        return encode_inputs((item, sizes[item.sha256]) for item in inputs)

    def _checks(
        self, files: tuple[tuple[bytes, bytes], ...], absences: tuple[Absence, ...]
    ) -> object:
        pins = Pins(self._memo)
        with contextlib.suppress(NotPinnedError, ValueError):
            # Objects are written beside sources, so check names and not a directory's times.
            directories = {absence.directory for absence in absences}
            pins.inputs(InputSet(files, (), absences, b""), directories)
            return self._engine.prepare(Checks(pins.checks(), (), 0, (0, 0), b""))
        return None


def refuse_unlike_in_guest(twins: tuple[Twins, ...]) -> None:
    """Refuse files of one content that a compiler in the guest may relate differently.

    There no two files are one inode, and their times are not ours. Names of one file without a
    link lead to one file there, too.

    Raises:
        UncacheableError: there are such files.
    """
    of_files = [t for t in twins if t.rule is not TwinRule.LINK and not are_one_file_everywhere(t)]
    if any(t.rule is not TwinRule.INODE or len(t.groups) < len(t.paths) for t in of_files):
        raise UncacheableError(UncacheableReason.TWIN_HEADERS)


def check_assembler(prepared: Prepared, memo: FileMemo, digest: bytes) -> None:
    """Refuse a source of GNU as that may read other files, or that asks for debug information.

    Raises:
        NotPortableError: it does, or it is for another assembler.
    """
    debug = next(filter(_ASSEMBLER_DEBUG.fullmatch, prepared.invocation.arguments), b"")
    if prepared.family.name != "gnu" or debug:
        detail = f"{debug.decode('utf-8', 'replace')} with plain assembler" if debug else ""
        raise NotPortableError(FallbackReason.NO_PREPROCESSING, detail)
    found = memo.derived(prepared.source, digest, "plain-assembler", _read_plain)
    if found is None:
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    if found == _LINES:
        raise NotPortableError(FallbackReason.NO_PREPROCESSING, "debug information in the text")
    if found:
        raise NotPortableError(FallbackReason.INCBIN)


def _read_plain(text: bytes) -> str:
    """Return what a text of the assembler does that a guest may do otherwise; "" for nothing."""
    directives = read_assembler(text)
    if directives.is_opaque or directives.names:
        return "reads"
    return _LINES if _LINE_DIRECTIVE.search(text) else ""


def _include_closure(
    starts: tuple[bytes, ...], search: Search, family: CompilerFamily, tree: DiskTree
) -> IncludeClosure:
    """Walk the includes. For cl, the directory of each includer joins the search path."""
    found = include_closure(starts, search, tree)
    while homes := family.quoted_homes(found.files):
        chain = tuple(dict.fromkeys((*search.chain, *homes)))
        if chain == search.chain:
            break
        search = replace(search, chain=chain)
        found = include_closure(starts, search, tree)
    return found


def search_of(prepared: Prepared, guest: GuestMap) -> Search:
    """Return the search path and macros of argv, for the walk.

    Raises:
        UnscannableError: argv has a flag that the walk does not follow.
    """
    invocation = prepared.invocation
    for flag in invocation.flags:
        if flag.spec.spelling == "-traditional-cpp":
            raise UnscannableError(ClosureReason.TRADITIONAL)
        if flag.spec.effect is Effect.TOOLS:
            raise UnscannableError(ClosureReason.TOOLS)
    chain = (
        plain_directory(absolute(prepared.cwd, d), os.path.islink)
        for d in (*invocation.include_dirs, *_environment_directories(prepared))
    )
    return Search(
        root=guest.root,
        cwd=prepared.cwd,
        chain=tuple(dict.fromkeys(d for d in chain if not guest.is_system(d))),
        forced=invocation.forced_includes,
        macros=invocation.macros,
        is_system=guest.is_system,
        is_installed=lambda path: guest.is_wide and guest.is_installed(path),
    )


def _environment_directories(prepared: Prepared) -> tuple[bytes, ...]:
    values = prepared.family.search_values(prepared.request.env)
    return tuple(d for value in values for d in value.split(b";") if d)


def _absences(found: IncludeClosure, tree: DiskTree) -> tuple[Absence, ...]:
    result = []
    for directory, names in found.absent.items():
        absence = Absence(directory, names, found.absent_directories.get(directory, _NONE))
        listing = tree.listing(directory)
        if listing is not None and listing.is_quiet:
            absence.signature = listing.signature
        result.append(absence)
    return tuple(result)


def remote_inputs(
    memo: FileMemo, files: Iterable[tuple[bytes, bytes]], guest: GuestMap
) -> tuple[RemoteInput, ...]:
    """Return (path, SHA-256) files as inputs of the guest's tree, sorted by guest path.

    Raises:
        NotPortableError: a link leads out of the root, or a guest cannot have a file of that name.
    """
    real_root = os.path.realpath(guest.root)
    homes = {guest.root: _without_slash(real_root)}
    inputs: dict[str, RemoteInput] = {}
    for path, digest in files:
        home, _, base = path.rpartition(b"/")
        if home not in homes:
            homes[home] = _real_directory(home)
        real = homes[home] + b"/" + base
        if os.path.islink(path):
            real = os.path.realpath(path)
        place = guest_path(guest.relative(path))
        # What is installed has no links on its way.
        if not is_under(real, real_root) and real != path:
            raise NotPortableError(FallbackReason.SYMLINK_OUTSIDE_ROOT)
        inputs[place] = RemoteInput(place, as_text([real])[0], False, digest.hex())
    return tuple(inputs[place] for place in sorted(inputs))


def _real_directory(path: bytes) -> bytes:
    real = os.path.realpath(path)
    normal = posixpath.normpath(path)
    if normal != path and os.path.realpath(normal) != real:
        # In the guest `link/../x` is another file, because its directories are real.
        raise NotPortableError(FallbackReason.SYMLINK_AND_DOTS)
    return _without_slash(real)


def _without_slash(real: bytes) -> bytes:
    return b"" if real == b"/" else real
