"""Which outputs besides object and dependency file a farm can make, and their form here.

A file of stack usage names sources in text, which is translated as messages are. Preprocessed text
names them in its line markers only; everything else in it is the source's own. A `.dwo` file is
found through its name in the object, which no prefix map changes, so that name must be relative.
Assembler text has the names that prefix maps give. Clang's bitcode (`-save-temps`) has the spelled
names, too, so these must be relative.
The counters of coverage and profiles belong to a path that the object names: it would be the
guest's.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError
from hpcc.compilers.invocation.guest_names import names_root
from hpcc.core.reasons.fallback import FallbackReason

_TEXTS: Final = (b".su", b".ci")
_SPLIT: Final = b".dwo"
_PREPROCESSED: Final = (b".i", b".ii", b".mi", b".mii")
_MARKER: Final = re.compile(rb'^# [0-9]+ "[^"\n]*"', re.MULTILINE)
_BITCODE: Final = b".bc"
_COUNTERS: Final = re.compile(
    rb"--?coverage|-ftest-coverage|-fprofile-arcs|-fprofile-generate.*|-fcoverage-mapping"
)


def check_side_outputs(prepared: Prepared) -> None:
    """Check the further outputs of a compile.

    Raises:
        NotPortableError: one of them would name a path of the guest.
    """
    counters = filter(_COUNTERS.fullmatch, prepared.invocation.arguments)
    if flag := next(counters, b""):
        raise NotPortableError(FallbackReason.SIDE_OUTPUT, f"{flag.decode()} names its counters")
    is_relative = not prepared.invocation.output.startswith(b"/")
    is_spelled = names_root(prepared.invocation)
    for file in prepared.written.side:
        name = file.name
        may_come = name.endswith((*_TEXTS, *_PREPROCESSED, b".s"))
        may_come = may_come or (name.endswith(_SPLIT) and is_relative)
        if not may_come and not (name.endswith(_BITCODE) and not is_spelled):
            raise NotPortableError(FallbackReason.SIDE_OUTPUT, name.decode("utf-8", "replace"))


def client_side(name: str, data: bytes, guest: GuestMap) -> bytes:
    """Return a guest's further output as a compile here writes it."""
    kind = name.encode()
    if kind.endswith(_PREPROCESSED):
        return _MARKER.sub(lambda match: guest.text(match[0]), data)
    return guest.text(data) if kind.endswith(_TEXTS) else data
