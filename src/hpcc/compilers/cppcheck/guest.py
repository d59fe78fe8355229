"""A run of cppcheck in a guest: names of files are translated, and nothing else is.

Findings depend on the length of the string `__FILE__`. So a text that may hold it is refused if a
name is absolute. XML writes some letters otherwise, and cppcheck some as numbers, so the root's
path has none of them.

Suppressions may name files by patterns that cppcheck compares with whole names, which differ
between a guest and this machine. So those with a colon, which is in front of a file, are refused.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Final

from hpcc.compilers.cppcheck.invocation import CppcheckInvocation
from hpcc.compilers.invocation.guest import GuestCommand, GuestMap, NotPortableError
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.core.reasons.fallback import FallbackReason

_PLACES: Final = (b":", b"<")
_AS_IT_IS: Final = re.compile(rb"[ !#-%(-;=?-\[\]-~]*+")
# All of it, or one of two pieces that are pasted.
_OWN_NAME: Final = (b"__FI", b"ILE__")
_FILES: Final = frozenset({b"--suppressions-list", b"--exitcode-suppressions", b"--include"})


class CppcheckAnalyser:
    """See `Analyser`."""

    asked: frozenset[int] = frozenset({217})

    def guest_command(self, invocation: Invocation, guest: GuestMap) -> GuestCommand:
        assert isinstance(invocation, CppcheckInvocation)
        if not _AS_IT_IS.fullmatch(guest.root):
            raise NotPortableError(FallbackReason.ANALYSER, "a root with letters that change")
        return GuestCommand(tuple(_translated(invocation, guest)), ())

    def made_files(self, invocation: Invocation, guest: GuestMap) -> Mapping[bytes, bytes]:
        del invocation, guest
        return {}

    def working_directory(self, invocation: Invocation) -> bytes:
        del invocation
        return b""

    def words_of_place(self, invocation: Invocation) -> tuple[bytes, ...]:
        assert isinstance(invocation, CppcheckInvocation)
        options = invocation.options
        names = (options.source, *options.directories, *options.includes)
        return _OWN_NAME if any(name.startswith(b"/") for name in names) else ()

    def settings(self, invocation: Invocation) -> tuple[bytes, ...]:
        assert isinstance(invocation, CppcheckInvocation)
        return tuple(invocation.options.lists)

    def place_in(self, text: bytes, root: bytes) -> str:
        del root
        return "a suppression with a file" if any(mark in text for mark in _PLACES) else ""


def _library(name: bytes, guest: GuestMap) -> bytes:
    """Return a library's name. The probe compared those that end with `.cfg`, written or not."""
    if posixpath.splitext(name)[1] not in {b"", b".cfg"}:
        raise NotPortableError(
            FallbackReason.ANALYSER, f"--library={name.decode('utf-8', 'replace')}"
        )
    return guest.spell(name) if name.startswith(b"/") else name


def _translated(invocation: CppcheckInvocation, guest: GuestMap) -> Iterator[bytes]:
    rest = iter(invocation.line)
    for argument in rest:
        name, equals, value = argument.partition(b"=")
        if not argument.startswith(b"-"):
            yield guest.spell(argument)
        elif argument.startswith(b"-I"):
            yield b"-I" + guest.spell(argument[2:] or next(rest, b""))
        elif argument in {b"-D", b"-U"}:
            yield from (argument, next(rest, b""))
        elif equals and name in _FILES:
            yield name + b"=" + guest.spell(value)
        elif equals and name == b"--library":
            yield b"--library=" + b",".join(_library(name, guest) for name in value.split(b","))
        elif name == b"--suppress-xml" or (name == b"--suppress" and b":" in value):
            text = argument.decode("utf-8", "replace")
            raise NotPortableError(FallbackReason.ANALYSER, text)
        else:
            yield argument
