"""The last look at a result before other clones may have it: does anything in it name this one?"""

from __future__ import annotations

import enum
import hashlib
import posixpath
import struct
from collections.abc import Iterable
from typing import Final

from hpcc.cache.base.files import MAX_SOURCE_BYTES, FileMemo
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.key.share import Share
from hpcc.cache.results.results import Result
from hpcc.compilers.scan.scan import Hazard
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.private import PrivateReason

_IDENT: Final = struct.Struct("<4sBB")
_COMPRESSED: Final = 0x800  # SHF_COMPRESSED, ELF gABI
_LITTLE_ENDIAN: Final = 1
# By ELF class: where e_shoff, e_shentsize and e_shnum are, and sh_flags in a section's header.
_LAYOUTS: Final = {
    1: (struct.Struct("<32xI10xHH"), struct.Struct("<8xI")),
    2: (struct.Struct("<40xQ10xHH"), struct.Struct("<8xQ")),
}
_MAX_SECTIONS: Final = 200_000
_MAX_REMEMBERED: Final = 200_000
# Where a path that a macro hands to an include line would begin: /home/me of /home/me/project.
_BEGINNING_NAMES: Final = 2


class _Finding(enum.Flag):
    """What a source holds that may tie it to one clone."""

    NOTHING = 0
    ROOT = enum.auto()
    COMPUTED = enum.auto()  # #include MACRO
    BEGINNING = enum.auto()  # a directory above the root


_PIECES: Final = _Finding.COMPUTED | _Finding.BEGINNING


class SourceCheck:
    """Looks into sources for the root, each content once. Thread-safe like `FileMemo`."""

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        self._known: BoundedMemo[tuple[bytes, bytes], _Finding] = BoundedMemo(_MAX_REMEMBERED)

    def why_not_shared(self, files: Iterable[tuple[bytes, bytes]], root: bytes) -> str:
        """Return why these files mean something else in another clone, "" when they do not.

        A name that is absolute in the text is the same in every clone, and would be taken for one
        below each clone's own root.
        """
        found = _Finding.NOTHING
        for path, digest in files:
            known = self._known.get((root, digest))
            if known is None:
                known = self._look(path, digest, root)
                if known is None:
                    return PrivateReason.INPUT_CHANGED
                self._known[root, digest] = known
            found |= known
        if _Finding.ROOT in found:
            return PrivateReason.ROOT_IN_SOURCE
        return PrivateReason.COMPUTED_INCLUDE if _PIECES in found else ""

    def has_twins(self, closure: Closure) -> bool:
        """Tell whether two names of one content ask to be read once.

        Compilers decide by inode or time stamp whether they are one file, and another clone has
        others there; the second name may then be one that is not watched.
        """
        first: dict[bytes | None, bytes] = {}
        names = [*closure.files, *((path, self._memo.digest(path)) for path in closure.existing)]
        twins = [path for path, digest in names if first.setdefault(digest, path) != path]
        contents = map(_read, twins)
        return any(data is None or b"once" in data or b"import" in data for data in contents)

    def _look(self, path: bytes, digest: bytes, root: bytes) -> _Finding | None:
        scanned = self._memo.scan(path)
        data = _read(path)
        if scanned is None or data is None or scanned[0] != digest:
            return None
        if hashlib.sha256(data).digest() != digest:
            return None
        scan = scanned[1]
        names = (*scan.quoted, *scan.angled, *(name for _, name in scan.questions))
        found = _Finding.NOTHING
        if root in data or any(root in posixpath.normpath(n) for n in names if n[:1] == b"/"):
            found |= _Finding.ROOT
        if Hazard.COMPUTED_INCLUDE in scan.hazards:
            found |= _Finding.COMPUTED
        if b"/".join(root.split(b"/")[: 1 + _BEGINNING_NAMES]) in data:
            found |= _Finding.BEGINNING
        return found


def why_not_shared(share: Share, closure: Closure, made: Result, sources: SourceCheck) -> str:
    """Return the reason to keep a result private, "" when every clone may have it."""
    root = share.checkout.root
    if made.side or made.stdout:
        return PrivateReason.FLAGS
    reason = why_object_is_private(made.object_data, share.secrets)
    if reason:
        return reason
    paths = [path for path, _ in closure.files]
    if any(path.startswith(root) and path[len(root) : len(root) + 1] != b"/" for path in paths):
        return PrivateReason.NEIGHBOUR  # /a/proj-2/x.h, which the map of /a/proj met as well
    # Names that led to a file which was read by another one are among those that exist.
    if share.has_other_names((*paths, *closure.existing)):
        return PrivateReason.SYSTEM_DIRECTORY
    if sources.has_twins(closure):
        return PrivateReason.TWIN_HEADERS
    reason = sources.why_not_shared(closure.files, root)
    if reason:
        return reason
    is_marked = share.checkout.marked_texts(made.depfile, made.stderr) is not None
    return "" if is_marked else PrivateReason.TEXT


def why_object_is_private(data: bytes, secrets: Iterable[bytes]) -> str:
    """Search an object for paths; one that could hide them is private, too."""
    compressed = _has_compressed_sections(data)
    if compressed is None:
        return PrivateReason.OBJECT_FORMAT
    if compressed:
        return PrivateReason.COMPRESSED_DEBUG
    return PrivateReason.EMBEDS_PATH if any(secret in data for secret in secrets) else ""


def _has_compressed_sections(data: bytes) -> bool | None:
    """Tell whether an ELF object has compressed sections; None when it is not one we can read."""
    try:
        magic, size, order = _IDENT.unpack_from(data)
        if magic != b"\x7fELF" or order != _LITTLE_ENDIAN or size not in _LAYOUTS:
            return None
        header, section = _LAYOUTS[size]
        offset, step, count = header.unpack_from(data)
        if offset and not count:  # more sections than the field holds: its real count is elsewhere
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
