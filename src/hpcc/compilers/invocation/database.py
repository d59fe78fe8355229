"""The entry of a compilation database (`compile_commands.json`) that a command line refers to.

An analyser gets the compile command of a source from there, so the command is a part of what is
asked for. It stands behind the command line, behind a mark that no argument can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

_MARK: Final = b"\0entry"
QUESTION_DIRECTORY: Final = b"\0directory"
"""Stands in a question for the directory of the files that belong to it."""


class DatabaseQuestion(NamedTuple):
    """Which entry a command line needs: the database's directory and the source, as spelled."""

    directory: bytes
    source: bytes


class DatabaseEntry(NamedTuple):
    """The compile command of a source: where it runs, and its words from the compiler on.

    `cwd` is the working directory of the command line that refers to the entry.
    """

    cwd: bytes
    directory: bytes
    words: tuple[bytes, ...]


def with_entry(arguments: Sequence[bytes], entry: DatabaseEntry) -> tuple[bytes, ...]:
    """Return a command line with the entry that it refers to."""
    return (*arguments, _MARK, entry.cwd, entry.directory, *entry.words)


def split_entry(arguments: Sequence[bytes]) -> tuple[Sequence[bytes], DatabaseEntry | None]:
    """Return what `with_entry` joined; None if there is no entry."""
    if _MARK not in arguments:
        return arguments, None
    at = arguments.index(_MARK)
    cwd, directory, *words = arguments[at + 1 :]
    return arguments[:at], DatabaseEntry(cwd, directory, tuple(words))
