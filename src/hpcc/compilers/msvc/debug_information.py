"""Puts debug information of cl into the object (`/Z7`) in place of a shared database (`/Zi`).

With `/Zi` the compiles of a target write into one database (cpp-docs, "/Z7, /Zi, /ZI"), and the
object refers to it. `/Z7` writes the same information into the object, and the linker makes the
program's `.pdb` of either. clang-cl takes `/Zi` for `/Z7` anyway. Not yet run on Windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcc.compilers.msvc.invocation import parse_arguments
from hpcc.compilers.spec.table import Bypass, Flag

_SHARED: Final = "Zi"
_EMBEDDED: Final = b"Z7"


def with_embedded_debug_info(arguments: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return arguments of cl with `/Z7` for each `/Zi`.

    One in `CL`, `_CL_` or a response file stays, and with it the refusal of the compile.
    """
    parts = parse_arguments(arguments, is_clang=False)
    if isinstance(parts, Bypass):
        return tuple(arguments)
    words: list[bytes] = []
    for part in parts:
        if not isinstance(part, Flag):
            words.append(part.name)
        elif part.spec.spelling == _SHARED:
            words.append(part.raw[0][:1] + _EMBEDDED)
        else:
            words.extend(part.raw)
    return tuple(words)
