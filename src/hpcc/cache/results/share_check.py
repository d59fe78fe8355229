"""Decides whether a result may be given to other clones: nothing in it may name this one.

Problem: `cache.key.share` decides before the compile, from the command line. Only the result shows
whether the compiler applied the prefix maps everywhere, and only the sources show whether they mean
the same in another clone.

Rule: a result is shared if all of these hold:

- it has no stdout and no further outputs, but for a list of modules that names none;
- it is an object, without a precompiled header or a compiled interface;
- the object is ELF without compressed sections, and contains none of `Share.secrets` (the root, its
  real path, the working directory, the home directory);
- no input lies in a directory whose name only begins with the root's (/a/proj-2 beside /a/proj),
  since the maps replace that prefix as well;
- no header may have been read under another, real name, or would be where the root's path is longer
  or shorter (`inputs.respelling`), and no two inputs of equal content ask to be read once;
- no source contains the root. If one contains the beginning of the root (/home/me), none may have
  a computed include (`#include MACRO`), which could assemble the path;
- the root can be marked in the depfile and the messages, to be replaced by another clone's;
- each precompiled header or interface that it read has an origin (`results.origins`), which stands
  for it.

Example: `const char *p = __FILE__;` passes, because the maps cover it. A generated source that
contains the absolute path of the project names the root, so its result is private.

What must never happen: a path of this clone reaches another one. A format that cannot be searched
counts as if it contained the path.
"""

from __future__ import annotations

import enum
import hashlib
import posixpath
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from hpcc.cache.base.files import MAX_SOURCE_BYTES, FileMemo
from hpcc.cache.base.twins import have_places
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.respelling import are_real, has_system_text, names_vary
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.key.share import Share
from hpcc.cache.results.results import Result
from hpcc.compilers.invocation.interfaces import INTERFACE_FLAG
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.modules import LISTING_SUFFIX, RELATIVE_UNITS
from hpcc.compilers.invocation.share_text import mark_includes
from hpcc.compilers.scan.scan import Hazard
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.private import PrivateReason

_IDENT: Final = struct.Struct("<4sBB")
_COMPRESSED: Final = 0x800  # SHF_COMPRESSED, ELF gABI
_LITTLE_ENDIAN: Final = 1
# By ELF class: e_shoff, e_shentsize, e_shnum in the file header, sh_flags in a section header.
_LAYOUTS: Final = {
    1: (struct.Struct("<32xI10xHH"), struct.Struct("<8xI")),
    2: (struct.Struct("<40xQ10xHH"), struct.Struct("<8xQ")),
}
_MAX_SECTIONS: Final = 200_000
_MAX_REMEMBERED: Final = 200_000
_MAX_MARKED: Final = 10_000
# A path that a macro passes to an include line would begin so: /home/me of /home/me/project.
_BEGINNING_NAMES: Final = 2


class _Finding(enum.Flag):
    """What a source contains that may tie it to one clone."""

    NOTHING = 0
    ROOT = enum.auto()
    COMPUTED = enum.auto()  # #include MACRO
    BEGINNING = enum.auto()  # a directory above the root
    INCLUDES = enum.auto()  # the root, only in names of include lines


_PIECES: Final = _Finding.COMPUTED | _Finding.BEGINNING


class MarkedSource(NamedTuple):
    """A source that includes headers by absolute names.

    The SHA-256 of its text with a mark in place of the root, and the MD5 of the text as it is.
    """

    digest: bytes
    md5: bytes


class SourceCheck:
    """Searches sources for the root, each content once. Thread-safe like `FileMemo`."""

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        self._known: BoundedMemo[tuple[bytes, bytes], _Finding] = BoundedMemo(_MAX_REMEMBERED)
        self._marked: BoundedMemo[tuple[bytes, bytes], MarkedSource] = BoundedMemo(_MAX_MARKED)

    def why_not_shared(
        self, files: Iterable[tuple[bytes, bytes]], root: bytes, *, may_include: bool = False
    ) -> str:
        """Return why these (path, SHA-256) files may mean something else elsewhere, else "".

        An absolute name in the text is the same in every clone, but the shared manifest would
        treat it as a name below each clone's own root. `may_include`: such a name in an include
        line does not count (`marked`).
        """
        found = _Finding.NOTHING
        for path, digest in files:
            known = self._finding(path, digest, root)
            if known is None:
                return PrivateReason.INPUT_CHANGED
            if known is not _Finding.NOTHING:  # rare, and combining flags costs a microsecond
                found |= known
        if _Finding.ROOT in found or (_Finding.INCLUDES in found and not may_include):
            return PrivateReason.ROOT_IN_SOURCE
        return PrivateReason.COMPUTED_INCLUDE if _PIECES in found else ""

    def marked(self, path: bytes, digest: bytes, root: bytes) -> MarkedSource | None:
        """Return how other clones know a source; None unless include lines alone name the root."""
        found = self._finding(path, digest, root)
        if found is None or _Finding.INCLUDES not in found:
            return None
        known = self._marked.get((root, digest))
        if known is None:  # forgotten meanwhile
            self._look(path, digest, root)
            known = self._marked.get((root, digest))
        return known

    def _finding(self, path: bytes, digest: bytes, root: bytes) -> _Finding | None:
        known = self._known.get((root, digest))
        if known is None:
            known = self._look(path, digest, root)
            if known is not None:
                self._known[root, digest] = known
        return known

    def are_respelled(
        self, invocation: Invocation, cwd: bytes, files: Sequence[tuple[bytes, bytes]]
    ) -> bool:
        """Tell whether GCC may call one of a project's files otherwise in another clone."""
        if names_vary(self._memo, invocation, cwd, files):
            return True
        is_odd = any(b"/../" in path for path, _ in files) or not are_real(p for p, _ in files)
        return is_odd and has_system_text(self._memo, files)

    def _look(self, path: bytes, digest: bytes, root: bytes) -> _Finding | None:
        scanned = self._memo.scan(path)
        data = _read(path)
        if scanned is None or data is None or scanned[0] != digest:
            return None
        if hashlib.sha256(data).digest() != digest:
            return None
        scan = scanned[1]
        asked = (name for _, name in (*scan.asked.names, *scan.asked.loose))
        names = {*scan.quoted, *scan.angled, *asked}
        found = _Finding.NOTHING
        marked = mark_includes(data, root) if root in data else None
        if marked is not None:
            found |= _Finding.INCLUDES
            source = MarkedSource(
                hashlib.sha256(marked[0]).digest(),
                hashlib.md5(data, usedforsecurity=False).digest(),
            )
            self._marked[root, digest] = source
            data = marked[0]
            names -= marked[1]
        if root in data or any(root in posixpath.normpath(n) for n in names if n[:1] == b"/"):
            found |= _Finding.ROOT
        if Hazard.COMPUTED_INCLUDE in scan.hazards or scan.asked.macros:
            found |= _Finding.COMPUTED
        if b"/".join(root.split(b"/")[: 1 + _BEGINNING_NAMES]) in data:
            found |= _Finding.BEGINNING
        return found


def why_not_shared(
    prepared: Prepared, share: Share, closure: Closure, made: Result, sources: SourceCheck
) -> str:
    """Return the `PrivateReason` to keep a result private, or "" if every clone may have it."""
    kind = _kept_here(prepared)
    if not kind:
        if made.stdout or not _are_sides_shared(prepared, share, made):
            return PrivateReason.FLAGS
        reason = why_object_is_private(made.object_data, share.secrets)
        if reason:
            return reason
    reason = why_inputs_differ(prepared, share, closure, sources) or kind
    if reason:
        return reason
    # Of each file that it mentions, Clang writes the MD5 into debug information.
    sources_here = marked_sources(prepared, share, closure, sources)
    if any(source.md5 in made.object_data for source in sources_here.values()):
        return PrivateReason.EMBEDS_PATH
    if any(posixpath.basename(path) in made.stderr for path in sources_here):
        return PrivateReason.TEXT  # it may show an include line, and mark the name's length
    is_marked = share.checkout.marked_texts(made.depfile, made.stderr) is not None
    return "" if is_marked else PrivateReason.TEXT


def _kept_here(prepared: Prepared) -> str:
    """Return the reason of what each clone makes for itself, "" for anything else."""
    if prepared.invocation.language.is_header:
        return PrivateReason.PCH
    is_interface = prepared.declares or prepared.invocation.values(INTERFACE_FLAG)
    return PrivateReason.MODULES if is_interface else ""


def why_inputs_differ(
    prepared: Prepared, share: Share, closure: Closure, sources: SourceCheck
) -> str:
    """Return the `PrivateReason` why inputs may mean something else in another clone, else "".

    Binary inputs are left out: they hold paths.
    """
    root = share.checkout.root
    if prepared.invocation.has_modules and not _are_units_here(share, closure):
        return PrivateReason.FLAGS
    binary = frozenset(closure.binary)
    files = tuple(file for file in closure.files if file[0] not in binary)
    paths = [path for path, _ in files]
    if any(path.startswith(root) and path[len(root) : len(root) + 1] != b"/" for path in paths):
        return PrivateReason.NEIGHBOUR  # /a/proj-2/x.h: the map of /a/proj replaced its prefix, too
    # `existing` holds the other names of files that were read, too.
    if share.has_other_names((*paths, *closure.existing)):
        return PrivateReason.SYSTEM_DIRECTORY
    own = [file for file in files if file[0].startswith(root)]
    if sources.are_respelled(prepared.invocation, prepared.cwd, own):
        return PrivateReason.SYSTEM_DIRECTORY
    if have_places(closure.twins):
        return PrivateReason.EMBEDS_INODE
    may_include = _may_include(prepared, closure)
    return sources.why_not_shared(files, root, may_include=may_include)


def _may_include(prepared: Prepared, closure: Closure) -> bool:
    """Tell whether sources may include headers by names that hold the root.

    CMake writes such a source for a precompiled header. Nothing reads its text as data, and what is
    made of it is compared (`results.origins`).
    """
    is_compared = prepared.invocation.language.is_header or bool(closure.precompiled)
    return is_compared and not closure.data


def marked_sources(
    prepared: Prepared, share: Share, closure: Closure, sources: SourceCheck
) -> dict[bytes, MarkedSource]:
    """Return the sources that include headers by names that hold the root, by their paths.

    For inputs about which `why_inputs_differ` found no reason.
    """
    if not _may_include(prepared, closure):
        return {}
    root, binary = share.checkout.root, frozenset(closure.binary)
    texts = (file for file in closure.files if file[0] not in binary)
    found = ((path, sources.marked(path, digest, root)) for path, digest in texts)
    return {path: source for path, source in found if source is not None}


def _are_sides_shared(prepared: Prepared, share: Share, made: Result) -> bool:
    """Tell whether the further outputs are lists of modules, which hold only the object's name."""
    return all(
        file.name.endswith(LISTING_SUFFIX) and not any(secret in data for secret in share.secrets)
        for file, data in zip(prepared.written.side, made.side, strict=True)
    )


def _are_units_here(share: Share, closure: Closure) -> bool:
    """Tell whether header units would be where `Checkout.units` says, and none would be found."""
    homes = [a for a in closure.absences if RELATIVE_UNITS in a.directories]
    first = share.checkout.root.split(b"/")[1]
    return bool(homes) and all(
        home.directory == share.checkout.units and first in home.directories for home in homes
    )


def why_object_is_private(data: bytes, secrets: Iterable[bytes]) -> str:
    """Return why an object is private, or "": it contains a secret path, or could hide one."""
    compressed = _has_compressed_sections(data)
    if compressed is None:
        return PrivateReason.OBJECT_FORMAT
    if compressed:
        return PrivateReason.COMPRESSED_DEBUG
    return PrivateReason.EMBEDS_PATH if any(secret in data for secret in secrets) else ""


def _has_compressed_sections(data: bytes) -> bool | None:
    """Tell whether an ELF object has compressed sections; None if it cannot be parsed.

    Reads at most `_MAX_SECTIONS` section headers; never raises.
    """
    try:
        magic, size, order = _IDENT.unpack_from(data)
        if magic != b"\x7fELF" or order != _LITTLE_ENDIAN or size not in _LAYOUTS:
            return None
        header, section = _LAYOUTS[size]
        offset, step, count = header.unpack_from(data)
        if offset and not count:  # more sections than the field holds; the count is elsewhere
            return None
        if count > _MAX_SECTIONS:
            return None
        flags = [section.unpack_from(data, offset + n * step)[0] for n in range(count)]
    except struct.error:
        return None
    return any(f & _COMPRESSED for f in flags) or b"\0.zdebug_" in data


def _read(path: bytes) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_SOURCE_BYTES)
    except OSError:
        return None
