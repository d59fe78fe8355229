"""C++ modules of GCC 14: flags, map, listing, compiled interfaces, header units.

Problem: CMake switches modules on for every C++20 source. A unit that neither declares nor imports
a module is a plain compile then, with two exceptions. GCC reads the map that `-fmodule-mapper=`
names. And for each `#include` it asks whether the header was compiled as a *header unit*: if that
file exists, GCC imports it and does not read the header.

Rule: whether a unit uses modules is read from what GCC wrote, never from the source, where a macro
or a header may hide it:

- without `-fdeps-format` the depfile has words that only modules have (`mid.c++m`). Such a unit is
  not kept;
- with it, the `.ddi` file says what the unit declares and imports. The depfile lists each compiled
  interface (`.gcm`) that was opened, also those that others import.

Where a unit writes its interface is known before: the map has the name that the source declares. If
the `.ddi` file says something else afterwards, the unit is not kept.

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

import json
import re
from typing import Final, NamedTuple

from hpcc.compilers.scan.text import without_likely_comments

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
_LINE_OF_MAP: Final = re.compile(rb"^([A-Za-z_][\w.:-]*) ([^\s]+)\n", re.MULTILINE)
_NAME: Final = re.compile(r"[A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?", re.ASCII)
_DECLARES: Final = re.compile(
    rb"^[ \t]*+(export[ \t]++)?module[ \t]++([A-Za-z_][\w.]*+)"
    rb"[ \t]*+(?::[ \t]*+([A-Za-z_][\w.]*+))?[ \t]*+(?:\[\[[^\n]*\]\])?[ \t]*+;",
    re.MULTILINE,
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


def interfaces_in_map(module_map: bytes) -> dict[bytes, bytes]:
    """Return the files of all modules that a map names, below its root; empty for another form."""
    root = root_of_interfaces(module_map)
    if root is None:
        return {}
    below = b"" if root in {b"", b"."} else root.rstrip(b"/") + b"/"
    found = _LINE_OF_MAP.findall(module_map)
    files = {name: file if file.startswith(b"/") else below + file for name, file in found}
    return files if len(files) == len(found) else {}


def declared_module(text: bytes) -> bytes:
    """Return the module whose interface or partition a source seems to be; b"" without one.

    A macro or a header may hide it. What GCC writes decides.
    """
    for found in _DECLARES.finditer(without_likely_comments(text)):
        if found[1] or found[3]:
            return found[2] + (b":" + found[3] if found[3] else b"")
    return b""


class ModuleList(NamedTuple):
    """What a unit declares (b"" for nothing) and imports, by the names of modules."""

    provides: bytes
    requires: tuple[bytes, ...]

    @property
    def is_empty(self) -> bool:
        return not self.provides and not self.requires


def read_listing(data: bytes) -> ModuleList | None:
    """Return what a `.ddi` file says; None for another form, and for header units."""
    try:
        (rule,) = json.loads(data)["rules"]
        provides = [_module(entry, {"is-interface"}) for entry in rule.get("provides", [])]
        requires = [_module(entry, set()) for entry in rule.get("requires", [])]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if len(provides) > 1 or not rule.keys() <= {"primary-output", "provides", "requires"}:
        return None
    return ModuleList(provides[0] if provides else b"", tuple(requires))


def _module(entry: dict[str, str], more: set[str]) -> bytes:
    """Return the name of a module; other keys than `more` tell of header units."""
    if not entry.keys() <= {"logical-name", *more} or not _NAME.fullmatch(entry["logical-name"]):
        raise ValueError("not a named module")
    return entry["logical-name"].encode()


def mentions_modules(depfile: bytes) -> bool:
    """Return whether a depfile has words that only units with modules have."""
    return any(word in depfile for word in _IN_DEPFILE)


def parts_of_unit(path: bytes) -> tuple[bytes, ...]:
    """Return the path components below the root of a header's unit, without `UNIT_SUFFIX`.

    `path` is absolute; it is not normalised.
    """
    parts = (b",," if part == b".." else part for part in path.split(b"/"))
    return tuple(part for part in parts if part not in {b"", b"."})
