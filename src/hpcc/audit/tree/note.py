"""Signed notes and checkpoints of C2SP: a tree's head as text that any witness can read and sign.

Sources: https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint. A note is a text that
ends in a newline, an empty line, and one line for each signature: an em dash, the key's name, and
base64 of the key's id (4 bytes) and the signature. Signatures of unknown keys are passed over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.heads import is_signed
from hpcc.audit.tree.merkle import HASH_BYTES, MAX_SIZE

_ED25519: Final = b"\x01"
_DASH: Final = "\N{EM DASH} "
_ID_BYTES: Final = 4
MAX_NOTE_BYTES: Final = 16 << 10
_MAX_SIGNATURES: Final = 64
# What a name may not have: white space, and the plus sign that ends it in the text of a key.
_NAME: Final = re.compile(r"[^\s+\x00-\x20\x7f]{1,200}")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_CHECKPOINT_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A name and a raw Ed25519 public key, whose signatures count."""

    name: str
    key: bytes

    def __post_init__(self) -> None:
        """Check the name.

        Raises:
            ValueError: a note cannot have it.
        """
        if not _NAME.fullmatch(self.name):
            raise ValueError("a note's key has no such name")

    @property
    def id(self) -> bytes:
        """Return the id that a signature line begins with."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.key).digest()[:_ID_BYTES]

    def text(self) -> str:
        """Return the key as verifiers of notes read it."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.key).decode()}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of the tree of log `origin`: the number of leaves and the root.

    `extension` are further lines, which are signed as well.
    """

    origin: str
    size: int
    root: bytes
    extension: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the text that is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extension)
        return "".join(f"{line}\n" for line in lines)


def sign_note(text: str, key: NoteKey, sign: Callable[[bytes], bytes]) -> str:
    """Return a note with one signature.

    Raises:
        ValueError: the text does not end in a newline, or has what a note may not have.
    """
    if not _is_text(text):
        raise ValueError("a note's text is lines of printable characters")
    line = base64.b64encode(key.id + sign(text.encode())).decode()
    return f"{text}\n{_DASH}{key.name} {line}\n"


def open_note(data: bytes, keys: Sequence[NoteKey]) -> tuple[str, tuple[str, ...]]:
    """Return a note's text and the names of the keys that signed it, at least one.

    Raises:
        AuditDamagedError: it has another form, a signature of a known key is wrong, or no known key
            signed it.
    """
    text, lines = _split(data)
    signed: list[str] = []
    for line in lines:
        name, value = _signature_line(line)
        key = next((k for k in keys if k.name == name and k.id == value[:_ID_BYTES]), None)
        if key is None:
            continue
        if not is_signed(key.key, value[_ID_BYTES:], text.encode()):
            raise AuditDamagedError(f"a note: the signature of {name} is wrong")
        if name not in signed:
            signed.append(name)
    if not signed:
        raise AuditDamagedError("a note is not signed by a known key")
    return text, tuple(signed)


def open_checkpoint(data: bytes, keys: Sequence[NoteKey], origin: str) -> Checkpoint:
    """Return the checkpoint of log `origin` that one of the keys signed.

    Raises:
        AuditDamagedError: it is of another log, or not signed by one of the keys.
    """
    text, _ = open_note(data, keys)
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < _CHECKPOINT_LINES or lines[0] != origin or "" in lines:
        raise AuditDamagedError("a checkpoint is of another log, or has another form")
    root = _decoded(lines[2])
    if not _SIZE.fullmatch(lines[1]) or int(lines[1]) > MAX_SIZE or len(root) != HASH_BYTES:
        raise AuditDamagedError("a checkpoint has no such size or root")
    return Checkpoint(origin, int(lines[1]), root, tuple(lines[_CHECKPOINT_LINES:]))


def _is_text(text: str) -> bool:
    return text.endswith("\n") and all(c == "\n" or (c >= " " and c != "\x7f") for c in text)


def _split(data: bytes) -> tuple[str, list[str]]:
    """Return a note's text and its signature lines.

    Raises:
        AuditDamagedError: it has another form.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise AuditDamagedError("a note is too large")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise AuditDamagedError("a note is not UTF-8") from error
    # The last empty line counts: the text may have others.
    text, separator, rest = whole.rpartition("\n\n")
    lines = rest.split("\n")
    if not separator or not _is_text(whole) or lines[-1] or not 1 < len(lines) <= _MAX_SIGNATURES:
        raise AuditDamagedError("a note has another form")
    return f"{text}\n", lines[:-1]


def _signature_line(line: str) -> tuple[str, bytes]:
    """Return the name and the decoded value of a signature line.

    Raises:
        AuditDamagedError: it has another form.
    """
    name, separator, value = line.removeprefix(_DASH).partition(" ")
    decoded = _decoded(value)
    if not line.startswith(_DASH) or not separator or not _NAME.fullmatch(name):
        raise AuditDamagedError("a note has a line that is not a signature")
    if len(decoded) <= _ID_BYTES:
        raise AuditDamagedError("a note has a signature without bytes")
    return name, decoded


def _decoded(text: str) -> bytes:
    """Decode base64 in its one canonical form.

    Raises:
        AuditDamagedError: it is another text.
    """
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AuditDamagedError("a note has something else in place of base64") from error
    if base64.b64encode(found).decode() != text:
        raise AuditDamagedError("a note has base64 that is not in canonical form")
    return found
