"""The private directory of a target, which a content key leaves out of the search path.

Meson gives each target a directory `NAME.p` for its objects and searches it for headers, mostly in
vain. So one source in two targets has two search paths, and one object. A content key holds a mark
for a search directory that is the output's own directory. An entry may be used for another target
if nothing was found there, and nothing but the search path leads there.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.content.places import Places
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.content import ContentForm, NamedPath
from hpcc.compilers.scan.scan import Hazard
from hpcc.compilers.scan.text import joined

# No file name holds NUL, so no other path begins like a mark.
PRIVATE_MARK: Final = b"\0o"
_SUFFIX: Final = b".p"
# A text may put a name together that leads into any directory.
_HIDDEN: Final = (
    Hazard.COMPUTED_INCLUDE
    | Hazard.ASSEMBLER_FILE
    | Hazard.OPAQUE_ASSEMBLY
    | Hazard.EMBED
    | Hazard.OPAQUE_EMBED
    | Hazard.OPAQUE_QUESTION
)


def private_directory(
    prepared: Prepared, places: Places, form: ContentForm, texts: Iterable[bytes]
) -> bytes:
    """Return the spelled name of the private directory, which is on the search path; else b"".

    `texts` are what else the key holds, and may name a directory.
    """
    name, _, _ = prepared.invocation.output.rpartition(b"/")
    base = name.rpartition(b"/")[2]
    if not base.endswith(_SUFFIX) or base == _SUFFIX or b".." in name.split(b"/"):
        return b""
    path = absolute(prepared.cwd, name)
    inside = path + b"/"
    is_in_place = any(place and path.startswith(place + b"/") for place in places)
    if prepared.share is not None or not is_in_place or path != posixpath.normpath(path):
        return b""
    is_searched, before = False, b""
    for piece in form.pieces:
        if isinstance(piece, NamedPath):
            if piece.name == name and before == b"-I":
                is_searched = True
            elif base in piece.name or (absolute(prepared.cwd, piece.name) + b"/").startswith(
                inside
            ):
                return b""
        before = piece if isinstance(piece, bytes) else b""
    return name if is_searched and not any(base in text for text in texts) else b""


def marked(inputs: InputSet, places: Places, directory: bytes) -> InputSet:
    """Return the inputs with marks for the places and for a private directory."""
    if not directory:
        return places.marked(inputs)
    inside = directory + b"/"
    return inputs.renamed(
        lambda path: (
            PRIVATE_MARK + path[len(directory) :]
            if (path + b"/").startswith(inside)
            else places.mark(path)
        )
    )


def spelled(inputs: InputSet, places: Places, directory: bytes) -> InputSet:
    """Reverse `marked` with the directories of another compile."""
    if not directory:
        return places.spelled(inputs)
    return inputs.renamed(
        lambda path: (
            directory + path[len(PRIVATE_MARK) :]
            if path.startswith(PRIVATE_MARK)
            else places.spell(path)
        )
    )


def needs_directory(
    memo: FileMemo, closure: Closure, directory: bytes, outputs: Iterable[bytes], stderr: bytes
) -> bool:
    """Tell whether a result may depend on which directory is the private one."""
    inside, base = directory + b"/", directory.rpartition(b"/")[2]
    names = (*(path for path, _ in closure.files), *closure.present, *closure.existing)
    if stderr or closure.hazards & _HIDDEN or any(n.startswith(inside) for n in names):
        return True
    if any(base in data for data in outputs):
        return True
    # One search for all targets: each such name holds the end of one of these directories.
    return any(
        memo.derived(path, digest, "leads-to-private", _leads) is not False
        for path, digest in closure.files
    )


def _leads(text: bytes) -> bool:
    return _SUFFIX + b"/" in joined(text)
