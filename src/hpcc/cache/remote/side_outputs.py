"""Which outputs besides object and dependency file a farm can make, and their form here.

A file of stack usage names sources in text, which is translated as messages are. A `.dwo` file is
found through its name in the object, which no prefix map changes, so that name must be relative.
The counters of coverage and profiles belong to a path that the object names: it would be the
guest's.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.guest import NotPortableError, guest_text
from hpcc.core.reasons.fallback import FallbackReason

_TEXTS: Final = (b".su", b".ci")
_SPLIT: Final = b".dwo"
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
    for file in prepared.written.side:
        is_relative = not prepared.invocation.output.startswith(b"/")
        if not (file.name.endswith(_TEXTS) or (file.name.endswith(_SPLIT) and is_relative)):
            name = file.name.decode("utf-8", "replace")
            raise NotPortableError(FallbackReason.SIDE_OUTPUT, name)


def client_side(name: str, data: bytes, root: bytes) -> bytes:
    """Return a guest's further output as a compile here writes it."""
    return guest_text(data, root) if name.encode().endswith(_TEXTS) else data
