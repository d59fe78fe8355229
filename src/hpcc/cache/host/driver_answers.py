"""Reads a driver's answers: which directories it searches, and whether it is a compiler itself."""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.spec.drivers import OTHER_CACHES, is_other_driver
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

_ELF: Final = b"\x7fELF"
_IGNORED: Final = re.compile(
    rb'^ignoring (?:nonexistent|duplicate) directory "(.*)"$', re.MULTILINE
)


def refusal_of_driver(compiler: bytes, real: bytes) -> Bypass | None:
    """Return why a program is not taken for a compiler, or None. `real` has links resolved."""
    names = {compiler.rpartition(b"/")[2], real.rpartition(b"/")[2]}
    if names & OTHER_CACHES:
        return Bypass(BypassReason.WRAPPER)
    try:
        with open(real, "rb") as file:
            if file.read(len(_ELF)) != _ELF:
                return Bypass(BypassReason.WRAPPER_SCRIPT)
    except OSError:
        return Bypass(BypassReason.COMPILER_UNREADABLE)
    # Bypass a name that means C with a driver for C++, and names like `cc-wrapper-1`.
    return Bypass(BypassReason.UNKNOWN_COMPILER) if is_other_driver(compiler, real) else None


def search_lines(text: bytes) -> tuple[bytes, ...]:
    """Return the directories in the output of `-v`, in order; those it ignores come first."""
    found = [m[1] for m in _IGNORED.finditer(text)]
    is_inside = False
    for line in text.splitlines():
        if line.startswith(b"#include ") and line.endswith(b"search starts here:"):
            is_inside = True
        elif line.startswith(b"End of search list"):
            break
        elif is_inside and line.startswith(b" "):
            found.append(line[1:].removesuffix(b" (framework directory)"))
    return tuple(dict.fromkeys(d for d in found if d))
