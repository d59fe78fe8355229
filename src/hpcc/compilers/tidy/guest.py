"""A run of clang-tidy in a guest: its own options, and the compile command.

The compile command is written anew from its meaning, behind `--` or into a compilation database
with one entry, as the user has it. clang-tidy drops outputs and depfiles anyway, and behind `--`
the driver in front, so leaving them out changes nothing. Flags of `--extra-arg-before` join the
others, where clang-tidy puts them. So do those of `--extra-arg` in a database. Behind `--` the
source comes last, and they stay behind it.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from hpcc.compilers.invocation.guest import (
    GUEST_ROOT,
    GuestCommand,
    GuestMap,
    NotPortableError,
    as_text,
    guest_arguments,
    warns_of_missing_directories,
)
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.table import Flag, Operand
from hpcc.compilers.tidy.filters import is_blind_to_place, place_in_config
from hpcc.compilers.tidy.invocation import TidyInvocation
from hpcc.compilers.tidy.options import DATABASE_NAME, END, read_words
from hpcc.core.reasons.fallback import FallbackReason

_FLAGS: Final = frozenset({b"extra-arg", b"extra-arg-before"})
_NAMES: Final = frozenset({b"config-file", b"p"})
_FILTERS: Final = frozenset({b"header-filter", b"exclude-header-filter"})
# Clang looks for GCC's headers beside the driver first. These lead to those that the probe read.
_DRIVERS: Final = frozenset({b"", b"/bin", b"/usr/bin"})
_KEPT: Final = frozenset({b"checks", b"warnings-as-errors", b"format-style"})
# Not `--system-headers`: findings are sorted by the names of their files.
_SWITCHES: Final = frozenset(
    {b"quiet", b"use-color", b"allow-no-checks", b"allow-enabling-analyzer-alpha-checkers"}
)


class TidyAnalyser:
    """See `Analyser`."""

    asked: frozenset[int] = frozenset({19})

    def guest_command(self, invocation: Invocation, guest: GuestMap) -> GuestCommand:
        assert isinstance(invocation, TidyInvocation)
        if warns_of_missing_directories(invocation):
            raise _stays("-Wmissing-include-dirs")
        if any(b"prefix-map" in argument for argument in invocation.arguments):
            raise _stays("a prefix map")
        if b"=" in guest.root:
            raise _stays("a root whose path holds =")
        mapped = _map(guest)
        if invocation.directory:
            if posixpath.dirname(invocation.driver[0]) not in _DRIVERS:
                raise _stays("a compiler beside which headers are looked for")
            return GuestCommand(tuple(_own_options(invocation, guest)), (mapped,))
        at = next(n for n, part in enumerate(invocation.parts) if isinstance(part, Operand))
        front = _translated(invocation, invocation.parts[:at], guest)
        behind = _translated(invocation, invocation.parts[at + 1 :], guest)
        own = list(_own_options(invocation, guest))
        own += (b"--extra-arg-before=" + mode for mode in invocation.driver)
        own += (b"--extra-arg=" + word for word in behind)
        return GuestCommand((*own, END, mapped, *front), (mapped,))

    def made_files(self, invocation: Invocation, guest: GuestMap) -> Mapping[bytes, bytes]:
        """Return the database with the one entry of the source."""
        assert isinstance(invocation, TidyInvocation)
        database, place = invocation.options.database, invocation.place
        if database is None or not invocation.directory:
            return {}
        driver, *modes = invocation.driver
        words = (driver, *modes, _map(guest), *guest_arguments(invocation, guest))
        source = posixpath.join(place, invocation.options.source)
        entry = {
            "directory": GUEST_ROOT.decode() + "/" + as_text([guest.relative(b".")])[0],
            "arguments": as_text(words),
            "file": GUEST_ROOT.decode() + "/" + as_text([guest.relative(source)])[0],
        }
        path = posixpath.normpath(posixpath.join(place, database, DATABASE_NAME))
        return {path: json.dumps([entry], ensure_ascii=False).encode()}

    def working_directory(self, invocation: Invocation) -> bytes:
        assert isinstance(invocation, TidyInvocation)
        return invocation.place

    def words_of_place(self, invocation: Invocation) -> tuple[bytes, ...]:
        del invocation
        return ()

    def settings(self, invocation: Invocation) -> tuple[bytes, ...]:
        assert isinstance(invocation, TidyInvocation)
        named = invocation.options.config_file
        return () if named is None else (posixpath.join(invocation.place, named),)

    def place_in(self, text: bytes, root: bytes) -> str:
        return place_in_config(text, root)


def _map(guest: GuestMap) -> bytes:
    """Return the flag with which `__FILE__` has the name that it has here."""
    return b"-fmacro-prefix-map=" + guest.base + b"=" + guest.root


def _spelled(name: bytes, place: bytes, guest: GuestMap) -> bytes:
    """Return the guest's spelling of a name that is relative to `place`, if that is not b""."""
    if name.startswith(b"/"):
        return guest.spell(name)
    guest.relative(posixpath.join(place, name))  # raises for one outside of the root
    return name


def _translated(
    invocation: TidyInvocation, parts: Sequence[Flag | Operand], guest: GuestMap
) -> tuple[bytes, ...]:
    if any(isinstance(part, Operand) for part in parts):
        raise _stays("several sources")
    return guest_arguments(replace(invocation, parts=tuple(parts)), guest)


def _own_options(invocation: TidyInvocation, guest: GuestMap) -> Iterable[bytes]:
    for name, value in read_words(invocation.line):
        if name in _FLAGS:
            continue
        if value is None:
            if name not in _SWITCHES:
                raise _stays(f"--{name.decode()}")
            yield b"--" + name
        elif not name:
            yield _spelled(value, invocation.place, guest)
        elif name in _NAMES:
            yield b"--" + name + b"=" + _spelled(value, invocation.place, guest)
        else:
            yield b"--" + name + b"=" + _translated_value(name, value, guest)


def _translated_value(name: bytes, value: bytes, guest: GuestMap) -> bytes:
    if name == b"config":
        if why := place_in_config(value, guest.root):
            raise _stays(f"--config with {why}")
    elif name in _FILTERS:
        if not is_blind_to_place(value, guest.root):
            raise _stays(f"--{name.decode()}={value.decode('utf-8', 'replace')}")
    elif name not in _KEPT:
        raise _stays(f"--{name.decode('utf-8', 'replace')}")
    return value


def _stays(detail: str) -> NotPortableError:
    return NotPortableError(FallbackReason.ANALYSER, detail)
