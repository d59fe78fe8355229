"""Which outputs besides object and dependency file a farm can make, and their form here.

A file of stack usage names sources in text, which is translated as messages are. Preprocessed text
names them in its line markers only; everything else in it is the source's own. A `.dwo` file is
found through its name in the object, which no prefix map changes, so that name must be relative.
Assembler text has the names that prefix maps give. Clang's bitcode (`-save-temps`) has the spelled
names, too, so these must be relative.

The counters of coverage and profiles belong to a path that the object names, which no map changes.
So the guest's root gets a path of the same length, and the client replaces it in object and notes.
GCC also hashes the names of sources and of the output for them, so that these must be relative.
All other flags must be on the list of content keys, but for those of `_NOT_TRIED`: with them the
compiler only copies names.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.farm_root import FarmRoot, spelled_root
from hpcc.compilers.invocation.content import is_proved_in_guests
from hpcc.compilers.invocation.guest import (
    SAME_LENGTH,
    SHORTEST_ROOT,
    GuestMap,
    NotPortableError,
)
from hpcc.compilers.invocation.guest_names import COUNTERS, names_root
from hpcc.compilers.spec.table import Operand
from hpcc.core.reasons.fallback import FallbackReason

_TEXTS: Final = (b".su", b".ci")
_SPLIT: Final = b".dwo"
_PREPROCESSED: Final = (b".i", b".ii", b".mi", b".mii")
_MARKER: Final = re.compile(rb'^# [0-9]+ "[^"\n]*"', re.MULTILINE)
_BITCODE: Final = b".bc"
_NOTES: Final = b".gcno"
# Compressed names cannot be replaced, and more than a copy of a name is not tried.
_NOT_TRIED: Final = re.compile(rb"-gz(?!=none).*|-f.*(?:sanitize|prefix-map).*")
_UNLIKE: Final = re.compile(rb"-fprofile-generate.+|-fcoverage-mapping")


def check_side_outputs(prepared: Prepared, root: FarmRoot, guest: GuestMap) -> GuestMap:
    """Check the further outputs of a compile; return the translation that they need.

    Raises:
        NotPortableError: one of them would name a path of the guest.
    """
    arguments = prepared.invocation.arguments
    if flag := next(filter(_UNLIKE.fullmatch, arguments), b""):
        raise NotPortableError(FallbackReason.SIDE_OUTPUT, f"{flag.decode()} names its counters")
    flag = next(filter(COUNTERS.fullmatch, arguments), b"")
    if flag:
        if why := _cannot_be_replaced(prepared, root):
            raise NotPortableError(FallbackReason.SIDE_OUTPUT, f"{flag.decode()} with {why}")
        guest = replace(guest, shown=root.path, base=SAME_LENGTH[: len(root.path)])
    is_relative = not prepared.invocation.output.startswith(b"/")
    is_spelled = names_root(prepared.invocation)
    for file in prepared.written.side:
        name = file.name
        may_come = bool(flag) and name.endswith(_NOTES)
        may_come = may_come or name.endswith((*_TEXTS, *_PREPROCESSED, b".s"))
        may_come = may_come or (name.endswith(_SPLIT) and is_relative)
        if not may_come and not (name.endswith(_BITCODE) and not is_spelled):
            raise NotPortableError(FallbackReason.SIDE_OUTPUT, name.decode("utf-8", "replace"))
    return guest


def _cannot_be_replaced(prepared: Prepared, root: FarmRoot) -> str:
    """Return why an object that names its counters cannot get this machine's names; "" if it can.

    `hpcc explain` shows it behind the flag.
    """
    invocation, family = prepared.invocation, prepared.family
    if not SHORTEST_ROOT <= len(root.path) <= len(SAME_LENGTH):
        return "a root whose path is too short or too long"
    if spelled_root(prepared, root.path) != root.path:
        return "a directory that the shell spells through a link"
    is_gcc = family.name == "gnu"
    if is_gcc and (names_root(invocation) or invocation.output.startswith(b"/")):
        return "absolute names of files or directories, which GCC hashes: name them relatively"
    plain = (b"--coverage", b"-coverage", b"-ftest-coverage", b"-fprofile-arcs")
    own = (*plain, b"-fprofile-generate") if is_gcc else plain
    parts = tuple(p for p in invocation.parts if isinstance(p, Operand) or p.raw[0] not in own)
    others = replace(invocation, parts=parts)
    is_tried = not any(map(_NOT_TRIED.fullmatch, invocation.arguments))
    form = family.content_form(others, prepared.identity.major)
    if not is_tried or not is_proved_in_guests(form):
        return "flags whose effect on names is not proved"
    return ""


def client_side(name: str, data: bytes, guest: GuestMap) -> bytes:
    """Return a guest's further output as a compile here writes it."""
    kind = name.encode()
    if kind.endswith(_PREPROCESSED):
        return _MARKER.sub(lambda match: guest.text(match[0]), data)
    data = guest.output(data)
    return guest.text(data) if kind.endswith(_TEXTS) else data
