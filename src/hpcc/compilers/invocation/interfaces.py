"""Compiled interfaces of C++20 modules as Clang writes and reads them (`.pcm`).

CMake gives the flags in a response file. `-x c++-module` with `-fmodule-output=F` writes one beside
the object. `-fmodule-file=NAME=F` names one that the unit may import; CMake names all that may be
needed, also those that others import.

With `-g`, a unit that imports a module opens the sources from which the interface was made, and
writes their MD5 into the object. No list and no preprocessor says so. An interface holds absolute
paths, so it is for one checkout.

A flag without a name gives the file of a header unit or of Clang's older modules, whose macros act
in the unit: such compiles are not cached, and neither are those that find interfaces by a rule
(`-fprebuilt-module-path=`).

Clang 22 writes a compiled interface of each module that it compiles, also if no flag asks for one:
beside the object, with its stem. Such a command is not cached, because a hit would leave an old
interface there. Without the flag, hpcc trusts only versions that left no such file in a test.

Sources: Clang, "Standard C++ Modules"; system call traces of Clang 17, 19, 22; CMake's `.modmap`.
"""

from __future__ import annotations

import re
from typing import Final

INTERFACE_FLAG: Final = "-fmodule-output="
IMPORT_FLAG: Final = "-fmodule-file="
INTERFACE_FLAGS: Final = frozenset({INTERFACE_FLAG, IMPORT_FLAG})
INTERFACE_SUFFIX: Final = b".pcm"
PROVED_CLANG: Final = frozenset({17, 19, 22})
"""The major versions of Clang whose modules are cached."""
ON_A_FARM: Final = frozenset({17, 19})
"""Those whose importing units may be compiled in a guest."""
QUIET_CLANG: Final = range(14, 20)
"""Those that write an interface only if a flag names it."""

# A module's name, with that of a partition behind a colon.
_NAMED: Final = re.compile(rb"[A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?=([^\n]+)")


def imported_file(value: bytes) -> bytes | None:
    """Return the file of NAME=FILE, the value of `IMPORT_FLAG`; None if there is no name."""
    found = _NAMED.fullmatch(value)
    return None if found is None else found[1]
