"""Checkpoints are signed notes of C2SP: read by other programs, and refused if anything differs."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.tree.note import (
    MAX_NOTE_BYTES,
    Checkpoint,
    NoteKey,
    open_checkpoint,
    open_note,
    sign_note,
)

SECRET = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "farm.example/worker/w1"


def key_of(secret: Ed25519PrivateKey, name: str = ORIGIN) -> NoteKey:
    return NoteKey(
        name,
        secret.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        ),
    )


KEY = key_of(SECRET)
HEAD = Checkpoint(ORIGIN, 1250, bytes(range(32)))
NOTE = sign_note(HEAD.text(), KEY, SECRET.sign).encode()

# The example of golang.org/x/mod/sumdb/note, whose form C2SP took over.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\N{EM DASH} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()


def test_a_checkpoint_reads_back() -> None:
    assert open_checkpoint(NOTE, [KEY], ORIGIN) == HEAD
    assert NOTE.decode().split("\n")[:3] == [ORIGIN, "1250", base64.b64encode(HEAD.root).decode()]
    longer = Checkpoint(ORIGIN, 0, bytes(32), ("one more line",))
    note = sign_note(longer.text(), KEY, SECRET.sign).encode()
    assert open_checkpoint(note, [KEY], ORIGIN) == longer


def test_a_note_that_another_program_signed_is_read() -> None:
    name, _, encoded = GO_KEY.split("+", 2)
    key = NoteKey(name, base64.b64decode(encoded)[1:])
    assert key.text() == GO_KEY
    text, names = open_note(GO_NOTE, [key])
    assert text.startswith("If you think")
    assert names == (name,)


def test_signatures_of_unknown_keys_are_passed_over_and_do_not_count() -> None:
    other = Ed25519PrivateKey.generate()
    witness = key_of(other, "witness.example/w1")
    line = sign_note(HEAD.text(), witness, other.sign).encode().partition(b"\n\n")[2]
    both = NOTE + line
    assert open_note(both, [KEY])[1] == (ORIGIN,)
    assert open_note(both, [witness])[1] == (witness.name,)
    assert open_note(both, [KEY, witness])[1] == (ORIGIN, witness.name)
    with pytest.raises(AuditDamagedError, match="not signed by a known key"):
        open_note(NOTE, [witness])
    # A key of the same name is another key.
    with pytest.raises(AuditDamagedError, match="not signed by a known key"):
        open_note(NOTE, [key_of(other)])


def test_a_change_of_any_byte_is_refused() -> None:
    for place in range(len(NOTE)):
        for change in (1, 0x20, 0x80):
            data = bytearray(NOTE)
            data[place] ^= change
            with pytest.raises(AuditDamagedError):
                open_checkpoint(bytes(data), [KEY], ORIGIN)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"\n\n", NOTE[:-1], NOTE + b"\n", NOTE + b"x", NOTE.replace(b"\n\n", b"\n"),
        NOTE.replace(b"\n\n", b"\n\r\n"), b"\xff" + NOTE, NOTE + b"\xe2\x80\x94 a\n",
        NOTE + b"\xe2\x80\x94 a AAAA\n", NOTE + b"\xe2\x80\x94 a+b AAAAAAA=\n",
        NOTE + b"\xe2\x80\x94  AAAAAAA=\n", b"a" * (MAX_NOTE_BYTES + 1),
        NOTE + b"\xe2\x80\x94 a AAAAAAA=\n" * 70,
    ],
)  # fmt: skip
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(AuditDamagedError):
        open_note(data, [KEY])


@pytest.mark.parametrize(
    "lines",
    [
        (ORIGIN, "1"), ("other", "1", "A" * 43 + "="), (ORIGIN, "01", "A" * 43 + "="),
        (ORIGIN, "-1", "A" * 43 + "="), (ORIGIN, str(1 << 63), "A" * 43 + "="),
        (ORIGIN, "1", "A" * 42 + "B="), (ORIGIN, "1", "AAAA"), (ORIGIN, "1", "A" * 43),
        (ORIGIN, "1", "A" * 43 + "=", ""), (ORIGIN, "9" * 30, "A" * 43 + "="),
    ],
)  # fmt: skip
def test_a_signed_text_that_is_no_checkpoint_of_this_log_is_refused(lines: tuple[str, ...]) -> None:
    note = sign_note("".join(f"{line}\n" for line in lines), KEY, SECRET.sign).encode()
    with pytest.raises(AuditDamagedError):
        open_checkpoint(note, [KEY], ORIGIN)


def test_names_and_texts_that_a_note_cannot_have_are_refused() -> None:
    for name in ("", "a b", "a+b", "a\n", "\x00", "a" * 201):
        with pytest.raises(ValueError, match="no such name"):
            NoteKey(name, KEY.key)
    for text in ("", "a", "a\x00\n", "a\r\n"):
        with pytest.raises(ValueError, match="printable"):
            sign_note(text, KEY, SECRET.sign)
