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
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo, Signature, signature_of
from hpcc.core.memo import BoundedMemo

_NAME: Final = b"compile_commands.json"
# Its parent directory then has two databases, and which of them counts depends on LLVM.
_OTHER_NAME: Final = b"compile_flags.txt"
# LLVM's own has 10 MB. To parse one takes several times its size in memory.
MAX_DATABASE_BYTES: Final = 32 << 20
_MAX_REMEMBERED: Final = 3
_NEEDED: Final = frozenset({"directory", "file"})
_COMMANDS: Final = frozenset({"command", "arguments"})
_KEYS: Final = _NEEDED | _COMMANDS | {"output"}
# LLVM reads the file as YAML, which does not join the halves of a surrogate pair.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# LLVM separates words by blanks only, and takes each character between single quotes as it is.
_WORD: Final = re.compile(rb"""(?s:[^ "'\\]++|\\.|"(?:[^"\\]++|\\.)*+"|'[^']*+')++""")
_QUOTED: Final = re.compile(rb"""(?s:\\(.)|"((?:[^"\\]++|\\.)*+)"|'([^']*+)')""")
_ESCAPED: Final = re.compile(rb"(?s:\\(.))")


class Command(NamedTuple):
    """A compile command: its directory, and either one text or words with NUL between them.

    A text is divided on demand: of a database with thousands of entries, one run needs one.
    """

    directory: bytes
    words: bytes
    is_text: bool

    def divided(self) -> tuple[bytes, ...] | None:
        """Return the words; None if LLVM may divide them in another way."""
        words = _divided(self.words) if self.is_text else self.words.split(b"\0")
        return tuple(words) if words and all(words) else None


class FoundCommand(NamedTuple):
    """A source's compile command, and the database's path, stat and SHA-256 when it was read."""

    directory: bytes
    words: tuple[bytes, ...]
    path: bytes
    signature: Signature
    digest: bytes


class _Entry(NamedTuple):
    """An entry as it is written. LLVM divides a single argument like a command, so both are one."""

    directory: str
    file: str
    words: list[str]


class Databases:
    """Remembers the last databases by their content. Thread-safe: each is parsed once."""

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        # By path: an old content is not needed again.
        self._known: BoundedMemo[bytes, tuple[bytes, Mapping[bytes, Command | None]]] = BoundedMemo(
            _MAX_REMEMBERED
        )
        # run-clang-tidy starts with as many runs as there are processors, all for one database.
        self._parsing = threading.Lock()

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
        command = self._commands(path, digest).get(source)
        words = None if command is None else command.divided()
        # Otherwise the stat would be that of another content.
        if command is None or words is None or _signature(path) != signature:
            return None
        return FoundCommand(command.directory, words, path, signature, digest)

    def _commands(self, path: bytes, digest: bytes) -> Mapping[bytes, Command | None]:
        """Return the commands of a database with this SHA-256; none if it has another one now."""
        known = self._known.get(path)
        if known is not None and known[0] == digest:
            return known[1]
        with self._parsing:
            known = self._known.get(path)
            if known is None or known[0] != digest:
                text = _read(path)
                if hashlib.sha256(text).digest() != digest:
                    return {}
                known = self._known[path] = (digest, read_database(text))
        return known[1]


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

    Empty if the text is not a database that LLVM reads in the same way. With an entry that it
    rejects, LLVM takes none of the others: it looks in the directories above, or uses no flags.
    """
    if _SURROGATE.search(text):
        return {}
    try:
        entries = json.loads(
            text.decode("utf-8", "surrogateescape"),
            object_pairs_hook=_entry,
            # In YAML, these are texts without quotes.
            parse_int=str,
            parse_float=str,
            parse_constant=str,
        )
    except (ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(entries, list):
        return {}
    found: dict[bytes, Command | None] = {}
    for entry in entries:
        if not isinstance(entry, _Entry):
            return {}
        source, command = _command(entry)
        # The name of a host for LLVM. It takes `//a.c` for a relative name.
        if source.startswith(b"//"):
            return {}
        found[source] = None if source in found else command
    return found


def _entry(pairs: list[tuple[str, object]]) -> _Entry:
    table = dict(pairs)
    # With a key that LLVM does not know, or one twice, its answer is another one.
    has_all = table.keys() >= _NEEDED and not table.keys().isdisjoint(_COMMANDS)
    if len(table) != len(pairs) or not has_all or not table.keys() <= _KEYS:
        raise ValueError("not an entry of a compilation database")
    texts = {name: _text(value) for name, value in table.items() if name != "arguments"}
    words = table["arguments"] if "arguments" in table else [texts["command"]]
    if not isinstance(words, list):
        raise TypeError("the arguments of an entry are not a list")
    return _Entry(texts["directory"], texts["file"], [_text(word) for word in words])


def _text(value: object) -> str:
    """Return a value as YAML reads it. A number is a text here."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str):
        raise TypeError("a value of an entry is a list or an object")
    return value


def _command(entry: _Entry) -> tuple[bytes, Command | None]:
    """Return the absolute name of an entry's source, and its command if that is certain."""
    place, file = _bytes(entry.directory), _bytes(entry.file)
    whole = posixpath.join(place, file)
    # LLVM has two commands for a source if two names are equal after these changes.
    name = posixpath.normpath(whole.replace(b"\\", b"/"))
    is_certain = place.startswith(b"/") and b"\0" not in place and b"\\" not in whole
    # An older LLVM changes only what is relative.
    is_certain = is_certain and (name == file or not file.startswith(b"/"))
    words = "\0".join(entry.words)
    if not is_certain or words.count("\0") != len(entry.words) - 1:
        return name, None
    return name, Command(place, _bytes(words), is_text=len(entry.words) == 1)


def _divided(text: bytes) -> list[bytes]:
    """Return the words of a text as LLVM divides it; none if its end is missing."""
    if _WORD.sub(b"", text).strip(b" "):
        return []
    return [_QUOTED.sub(_unquoted, word) for word in _WORD.findall(text)]


def _unquoted(part: re.Match[bytes]) -> bytes:
    char, double, single = part.groups()
    return _ESCAPED.sub(rb"\1", double) if double else char or single or b""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
