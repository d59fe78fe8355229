"""Decides whether a GCC specs file only adds flags that the table knows.

Source: GCC manual, "Spec Files". A specs file is a program: it may name further files, read the
environment, or run another compiler. The common ones (Debian's pie-compile.specs, Fedora's
redhat-hardened-cc1, newlib's nano.specs) only add flags under conditions.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.spec.table import Bypass, Effect, Flag

MAX_SPECS_BYTES: Final = 64 << 10

_COMMENT: Final = re.compile(rb"^#.*$", re.MULTILINE)
_HEAD: Final = re.compile(rb"^\*([\w+-]+):[ \t]*$", re.MULTILINE)
_RENAME: Final = re.compile(rb"^%rename[ \t]+(\w+)[ \t]+(\w+)[ \t]*$", re.MULTILINE)
# `.c:` and `@c:` define how to compile a language.
_LANGUAGE: Final = re.compile(rb"^[^*\n].*:[ \t]*$", re.MULTILINE)
# Sections that concern linking, and newlib's own names for parts of it.
_OF_THE_LINK: Final = re.compile(
    rb"(?:link|lib|libgcc|startfile|endfile|link_command|link_libgcc|link_gcc_c_sequence|linker"
    rb"|link_ssp)|(?:nano|nosys|rdimon)_\w+"
)
# GCC looks for this directory beside its own files.
BESIDE_GCC: Final = b" include%s"
_REPLACED: Final = frozenset({b"cc1", b"cc1plus"})
_OF_THE_COMPILE: Final = frozenset(
    b"self_spec cc1 cc1plus cc1_options cpp cpp_options cpp_unique_options".split()
)
# %{flag} and %{flag*}, the heads of %{flag:text; flag:text; :text}, and specs that remove flags.
# The text behind a condition is treated as if the condition always held.
_CONDITION: Final = re.compile(
    rb"%\{[!.,]?[\w+=-]+\*?[:}]|;[ \t\n]*(?:[!.,]?[\w+=-]+\*?)?:|\}|%<[\w+=-]+\*?"
)
# No macros: a -D may name a clock.
_HARMLESS: Final = frozenset({Effect.CODEGEN, Effect.SEARCH, Effect.INCLUDE_DIR, Effect.LINK})


def is_tame(text: bytes) -> bool:
    """Return whether a specs file only adds known flags whose text is all that matters."""
    if len(text) > MAX_SPECS_BYTES or b"\0" in text or b"\\" in text:
        return False
    text = _COMMENT.sub(b"", text)
    renamed = {m[1]: m[2] for m in _RENAME.finditer(text)}
    pieces = _HEAD.split(_RENAME.sub(b"", text))
    if pieces[0].strip():
        return False  # %include, or another top-level directive
    return all(
        _is_tame_section(name, body.strip(), renamed.get(name))
        for name, body in zip(pieces[1::2], pieces[2::2], strict=True)
    )


def _is_tame_section(name: bytes, body: bytes, old: bytes | None) -> bool:
    if _LANGUAGE.search(body) or b"%include" in body:
        return False
    if _OF_THE_LINK.fullmatch(name):
        return True
    if name not in _OF_THE_COMPILE:
        # musl's specs define names of no meaning, without a text.
        return not body and name.startswith(b"esp_")
    # A section that replaces the driver's default text makes it another compiler.
    if body.startswith(b"+"):
        body = body[1:]
    elif old is not None and body.count(b"%(" + old + b")") == 1:
        body = body.replace(b"%(" + old + b")", b" ")
    elif name in _REPLACED and body.startswith(b"%(cc1_cpu)"):
        # musl: its other default text is for -pg. `include%s` is a directory beside GCC's files.
        body = body.removeprefix(b"%(cc1_cpu)")
    else:
        return False
    plain = _CONDITION.sub(b" ", (body + b" ").replace(BESIDE_GCC + b" ", b" include "))
    parts = GNU_FLAGS.parse(plain.split())
    if any(c in plain for c in b"%:;{|&") or b"native" in plain or isinstance(parts, Bypass):
        return False
    return all(isinstance(p, Flag) and p.spec.effect in _HARMLESS for p in parts)
