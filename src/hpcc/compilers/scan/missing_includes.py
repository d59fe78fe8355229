"""Which header a guest's compiler reports as missing. Its text is hostile and parsed strictly.

Each request pins the guest's locale to C with `LC_ALL`, so that the messages are these. Sources:
GCC, libcpp/files.cc (`open_file_failed`) with strerror(ENOENT); Clang, `err_pp_file_not_found`,
and TextDiagnostic.cpp for clang-cl's `file(line,column):`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_MAX_TEXT: Final = 64 << 10
_MAX_NAMES: Final = 4
_COLOUR: Final = re.compile(rb"\x1b\[[0-9;]{0,16}[mK]")
_LINE: Final = re.compile(
    rb"^(?P<at>[^\x00-\x1f]{1,4096}?)"
    rb"(?::(?P<line>[0-9]{1,9}):(?:[0-9]{1,9}:)?|\((?P<cl_line>[0-9]{1,9})(?:,[0-9]{1,9})?\):)"
    rb" fatal error: "
    rb"(?:'(?P<clang>[^'\x00-\x1f]{1,1024})' file not found"
    rb"|(?P<gcc>[^:\x00-\x1f]{1,1024}): No such file or directory)\r?$",
    re.MULTILINE,
)
# Suffixes of files that people include. A guest that asks for any other file gets nothing.
_SUFFIXES: Final = frozenset(
    b"h hh hp hpp hxx h++ inc inl ipp tpp tcc txx def c cc cpp cxx s".split()
)


@dataclass(frozen=True, slots=True)
class MissingInclude:
    """A missing name, and file and line that include it, in the guest's spelling."""

    name: bytes
    at: bytes
    line: int


def missing_includes(stderr: bytes) -> tuple[MissingInclude, ...]:
    """Return what a failed compile reports missing; () if it failed for another reason."""
    text = _COLOUR.sub(b"", stderr[:_MAX_TEXT])
    found: dict[MissingInclude, None] = {}
    for match in _LINE.finditer(text):
        name = match["clang"] or match["gcc"]
        if may_be_included(name):
            line = int(match["line"] or match["cl_line"])
            found[MissingInclude(name, match["at"], line)] = None
    return tuple(found)[:_MAX_NAMES]


def may_be_included(name: bytes) -> bool:
    """Return whether a relative path looks like a header and not like a secret.

    Rejects hidden names (`.git`, `.env`, `.ssh`) and names without a source or header suffix.
    """
    *parents, base = name.split(b"/")
    if any(part.startswith(b".") and part not in {b".", b".."} for part in (*parents, base)):
        return False
    stem, dot, suffix = base.rpartition(b".")
    is_plain = not any(byte < 0x20 or byte in b"\\\x7f" for byte in name)  # noqa: PLR2004 - control characters
    return is_plain and bool(stem and dot) and suffix.lower() in _SUFFIXES and name[:1] != b"/"
