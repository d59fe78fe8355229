"""C++ modules of GCC 14 as far as a unit needs that uses none: flags, map, listing, header units.

Problem: CMake switches modules on for every C++20 source. A unit that neither declares nor imports
a module is a plain compile then, with two exceptions. GCC reads the map that `-fmodule-mapper=`
names. And for each `#include` it asks whether the header was compiled as a *header unit*: if that
file exists, GCC imports it and does not read the header.

Rule: whether a unit uses modules is read from what GCC wrote, never from the source, where a macro
or a header may hide it:

- without `-fdeps-format` the depfile has words that only modules have (`mid.c++m`);
- with it, the depfile of an interface has none of these. The `.ddi` file has them all.

The header unit of a relative name is below the directory `,` of the *root* of all compiled
interfaces, and each `..` of the name is `,,`. That of an absolute name is below the root by its
whole path. The root is `$root` of the map, or `gcm.cache` without a map.

Example: `#include "a.h"` in src/b.cpp asks for ROOT/,/src/a.h.gcm, and `<vector>` for
ROOT/usr/include/c++/14/vector.gcm.

What must never happen: a unit that writes or reads a compiled interface counts as plain. What has
another form than expected counts as a use of modules.

Sources: GCC manual, "C++ Modules" and "C++ Module Mapper"; system call traces of GCC 14.
"""

from __future__ import annotations

import re
from typing import Final

MODULES_FLAG: Final = "-fmodules-ts"
MAPPER_FLAG: Final = "-fmodule-mapper="
LISTING_FLAG: Final = "-fdeps-format=p1689r5"
MODULE_FLAGS: Final = frozenset({MODULES_FLAG, MAPPER_FLAG, LISTING_FLAG})
WITH_MODULES: Final = range(14, 15)
"""The major versions whose modules were asked. CMake uses modules from GCC 14 on."""

LISTING_SUFFIX: Final = b".ddi"
UNIT_SUFFIX: Final = b".gcm"
RELATIVE_UNITS: Final = b","
MAX_MAP_BYTES: Final = 1 << 20
_DEFAULT_ROOT: Final = b"gcm.cache"

# `<in>out` are descriptors, `=name` is a socket, `|program` and `@program` are programs; `:` is
# before a port, `?` before words for the mapper.
_MAP_FILE: Final = re.compile(rb"[^<=|@:?\s][^:?\s]*")
# Header units have names that begin with `.` or `/`. GCC reads a line of another form, too, and
# leaves out a last line without an end.
_MAP: Final = re.compile(rb"(?:\$root ([^\s]+)\n)?(?:[A-Za-z_][\w.:-]* [^\s]+\n)*")
_IN_DEPFILE: Final = (b".c++m", b".gcm", b"CXX_IMPORTS")
_NO_MODULES: Final = re.compile(
    rb'\{\s*"rules": \[\s*\{\s*"primary-output": "[^"]*",\s*"requires": \[\s*\]\s*\}\s*\],'
    rb'\s*"version": \d+,\s*"revision": \d+\s*\}\s*'
)
# The line of a source that declares or imports something, for messages only.
USE: Final = re.compile(
    rb"^[ \t]*(?:export[ \t]+)?(?:module|import)\b[ \t]*[;:<\"\w]", re.MULTILINE
)


def names_map_file(value: bytes) -> bool:
    """Return whether a mapper is a file; others are programs, sockets and descriptors."""
    return _MAP_FILE.fullmatch(value) is not None


def root_of_interfaces(module_map: bytes | None) -> bytes | None:
    """Return the directory of all compiled interfaces, as the map spells it.

    b"" is the working directory. `module_map` is the map's content, None without a map. Return None
    for a map of another form.
    """
    if module_map is None:
        return _DEFAULT_ROOT
    found = _MAP.fullmatch(module_map)
    return None if found is None else found[1] or b""


def uses_modules(depfile: bytes, listing: bytes | None) -> bool:
    """Return whether a unit declares or imports a module or a header unit.

    `depfile` is the whole text of `-MD`, `listing` that of the `.ddi` file if flags ask for one.
    """
    if any(word in depfile for word in _IN_DEPFILE):
        return True
    return listing is not None and _NO_MODULES.fullmatch(listing) is None


def parts_of_unit(path: bytes) -> tuple[bytes, ...]:
    """Return the path components below the root of a header's unit, without `UNIT_SUFFIX`.

    `path` is absolute; it is not normalised.
    """
    parts = (b",," if part == b".." else part for part in path.split(b"/"))
    return tuple(part for part in parts if part not in {b"", b"."})
