"""Finds the compile command of a source in a compilation database, `compile_commands.json`.

Problem: LLVM looks a source up in several ways: for names that are equal, then for names of one
file, then for the most similar name. The command it takes is a part of the key.

Rule: only the first rule counts. There must be exactly one entry with the source's name, letter by
letter as LLVM writes it, and its command must hold nothing that LLVM would expand or remove.
Everything else is a bypass.

Source: JSONCompilationDatabase.cpp and FileMatchTrie.cpp of LLVM 19.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo, Signature, signature_of
from hpcc.compilers.spec.response import split_response
from hpcc.core.memo import BoundedMemo

_NAME: Final = b"compile_commands.json"
# Its parent directory then has two databases, and which of them counts depends on LLVM.
_OTHER_NAME: Final = b"compile_flags.txt"
# LLVM's own has 10 MB. To parse one takes several times its size in memory.
MAX_DATABASE_BYTES: Final = 32 << 20
_MAX_REMEMBERED: Final = 3
_KEYS: Final = frozenset({"directory", "command", "arguments", "file", "output"})
# LLVM reads the file as YAML, which does not join the halves of a surrogate pair.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# LLVM separates words by blanks only.
_OTHER_SPACE: Final = re.compile(rb"[\t\n\v\f\r]")

Command = tuple[bytes, bytes]
"""The directory of a compile command, and its words with NUL between them."""


class FoundCommand(NamedTuple):
    """A source's compile command, and the database's path, stat and SHA-256 when it was read."""

    directory: bytes
    words: tuple[bytes, ...]
    path: bytes
    signature: Signature
    digest: bytes


class Databases:
    """Remembers the last databases by their content. Thread-safe: a race only parses twice."""

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        # By path: an old content is not needed again.
        self._known: BoundedMemo[bytes, tuple[bytes, Mapping[bytes, Command | None]]] = BoundedMemo(
            _MAX_REMEMBERED
        )

    def find(self, directory: bytes, source: bytes) -> FoundCommand | None:
        """Return the command of a source; None if it is not certain which one LLVM takes.

        Both paths are absolute.
        """
        path = posixpath.join(directory, _NAME)
        signature, digest = _signature(path), None
        if os.path.lexists(posixpath.join(directory, _OTHER_NAME)) or signature is None:
            return None
        if signature[2] <= MAX_DATABASE_BYTES:
            digest = self._memo.digest(path)
        if digest is None:
            return None
        known = self._known.get(path)
        if known is None or known[0] != digest:
            text = _read(path)
            if hashlib.sha256(text).digest() != digest:
                return None
            known = self._known[path] = (digest, read_database(text))
        command = known[1].get(source)
        # Otherwise the stat would be that of another content.
        if command is None or _signature(path) != signature:
            return None
        place, words = command
        return FoundCommand(place, tuple(words.split(b"\0")), path, signature, digest)


def _signature(path: bytes) -> Signature | None:
    try:
        return signature_of(os.stat(path))
    except (OSError, ValueError):
        return None


def _read(path: bytes) -> bytes:
    """Return the start of a file; b"" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_DATABASE_BYTES + 1)
    except OSError:
        return b""


def read_database(text: bytes) -> dict[bytes, Command | None]:
    """Return the commands of a database by source; None for a source that is not certain.

    Empty if the text is not a database that LLVM reads in the same way.
    """
    if _SURROGATE.search(text):
        return {}
    try:
        entries = json.loads(text.decode("utf-8", "surrogateescape"), object_pairs_hook=_entry)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(entries, list):
        return {}
    found: dict[bytes, Command | None] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            return {}
        read = _command(entry)
        if read is None:
            return {}
        source, command = read
        found[source] = None if source in found else command
    return found


def _entry(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    # With a key that LLVM does not know, or one twice, its answer is another one.
    if len(table) != len(pairs) or not _KEYS.issuperset(table):
        raise ValueError("not an entry of a compilation database")
    return table


def _command(entry: Mapping[str, object]) -> tuple[bytes, Command | None] | None:
    directory, file = entry.get("directory"), entry.get("file")
    if not isinstance(directory, str) or not isinstance(file, str):
        return None
    place, name = _bytes(directory), _bytes(file)
    is_certain = place.startswith(b"/")
    if not name.startswith(b"/"):
        name = posixpath.normpath(posixpath.join(place, name))
    words = _words(entry)
    return name, (place, words) if is_certain and words else None


def _words(entry: Mapping[str, object]) -> bytes | None:
    """Return the words of a command; None if LLVM may divide it in another way."""
    words = entry.get("arguments", entry.get("command"))
    found: list[bytes] = []
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        found = [_bytes(word) for word in words]
        words = words[0] if len(words) == 1 else None  # LLVM divides one argument like a command
    if isinstance(words, str):
        text = _bytes(words)
        found = [] if _OTHER_SPACE.search(text) else split_response(text)
    if not all(found) or any(b"\0" in word for word in found):
        return None
    return b"\0".join(found)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
