"""What somebody without the maker's key may do to an evidence file, chosen by a seed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from unittest import mock

from hpcc.audit.base.canonical import canonical
from hpcc.audit.tree.head import sign_tree_head
from hpcc.evidence.bundle import VSA, checkpoint_name
from hpcc.evidence.forms.container import pack_files, unpack_files
from hpcc.evidence.forms.dsse import IN_TOTO, seal_statement
from hpcc.evidence.keys import MAKER as MAKER_NAME
from hpcc.evidence.proof import open_head
from hpcc_testkit.evidence.made import MAKER, MadeEvidence, raw

from hpcc.evidence.keys import key_id_of  # isort: skip
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # isort: skip

THIEF: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(7, 39)))


class EvidenceTamperer:
    """Changes an evidence file; `other` is one of the same maker about another file."""

    def __init__(self, made: MadeEvidence, other: MadeEvidence, seed: int) -> None:
        self._made, self._other, self._random = made, other, random.Random(seed)  # noqa: S311 - repeatable
        self._kinds: tuple[Callable[[], bytes], ...] = (
            self._flip, self._cut, self._insert, self._truncate, self._swap_bytes,
            self._flip_inside, self._delete_line, self._repeat_line, self._shuffle_lines,
            self._change_line, self._spell, self._remove_file, self._add_file, self._swap_file,
            self._sign_anew, self._rename, self._pack_loosely, self._change_number,
            self._other_head,
        )  # fmt: skip

    def next(self) -> tuple[str, bytes]:
        """Return the name of a change, and the file with it."""
        kind = self._random.choice(self._kinds)
        return kind.__name__, kind()

    def _at(self, data: bytes | bytearray) -> int:
        return self._random.randrange(len(data))

    # The file as it lies on the disk.

    def _flip(self) -> bytes:
        data = bytearray(self._made.data)
        for _ in range(self._random.choice((1, 1, 1, 5))):
            data[self._at(data)] ^= 1 << self._random.randrange(8)
        return bytes(data)

    def _cut(self) -> bytes:
        at = self._at(self._made.data)
        return self._made.data[:at] + self._made.data[at + self._random.randrange(1, 200) :]

    def _insert(self) -> bytes:
        at = self._random.choice((0, len(self._made.data), self._at(self._made.data)))
        more = self._random.randbytes(self._random.randrange(1, 40))
        return self._made.data[:at] + more + self._made.data[at:]

    def _truncate(self) -> bytes:
        return self._made.data[: self._at(self._made.data)]

    def _swap_bytes(self) -> bytes:
        data = bytearray(self._made.data)
        a, b = self._at(data), self._at(data)
        data[a], data[b] = data[b], data[a]
        return bytes(data)

    # The files inside, packed again in the right form.

    def _packed(self, name: str, data: bytes) -> bytes:
        return pack_files({**self._made.files, name: data})

    def _name(self) -> str:
        return self._random.choice(sorted(self._made.files))

    def _flip_inside(self) -> bytes:
        name = self._name()
        data = bytearray(self._made.files[name])
        data[self._at(data)] ^= 1 << self._random.randrange(8)
        return self._packed(name, bytes(data))

    def _lines(self) -> tuple[str, list[bytes]]:
        name = self._name()
        return name, self._made.files[name].splitlines(keepends=True)

    def _delete_line(self) -> bytes:
        name, lines = self._lines()
        del lines[self._random.randrange(len(lines))]
        return self._packed(name, b"".join(lines))

    def _repeat_line(self) -> bytes:
        name, lines = self._lines()
        lines.insert(self._random.randrange(len(lines)), self._random.choice(lines))
        return self._packed(name, b"".join(lines))

    def _shuffle_lines(self) -> bytes:
        name, lines = self._lines()
        self._random.shuffle(lines)
        return self._packed(name, b"".join(lines))

    def _change_line(self) -> bytes:
        """Change what a payload says, and leave its signature."""
        name = self._random.choice([n for n in sorted(self._made.files) if ".json" in n])
        lines = self._made.files[name].splitlines()
        at = self._random.randrange(len(lines))
        table = json.loads(lines[at])
        if isinstance(table, dict) and "payload" in table:
            payload = base64.b64decode(table["payload"])
            table["payload"] = base64.b64encode(self._lie(payload)).decode()
            lines[at] = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
        else:
            lines[at] = self._lie(lines[at])
        end = b"\n" if self._made.files[name].endswith(b"\n") else b""
        return self._packed(name, b"\n".join(lines) + end)

    def _lie(self, text: bytes) -> bytes:
        for old, new in self._random.sample(_LIES, len(_LIES)):
            if old in text:
                return text.replace(old, new)
        return text + b" "

    def _spell(self) -> bytes:
        """Write the same JSON or base64 in another way."""
        name = self._random.choice([n for n in sorted(self._made.files) if ".json" in n])
        lines = self._made.files[name].splitlines()
        at = self._random.randrange(len(lines))
        table = json.loads(lines[at])
        lines[at] = self._random.choice(
            (
                json.dumps(table).encode(),
                json.dumps(table, sort_keys=True, separators=(",", ":"), indent=0).encode(),
                lines[at].replace(b"/", b"\\/"),
                lines[at].replace(b"=", b""),
                lines[at].replace(b"payloadType", b"payload\\u0054ype"),
                lines[at] + b"\r",
                b" " + lines[at],
            )
        )
        end = b"\n" if self._made.files[name].endswith(b"\n") else b""
        return self._packed(name, b"\n".join(lines) + end)

    def _remove_file(self) -> bytes:
        gone = self._name()
        return pack_files({n: data for n, data in self._made.files.items() if n != gone})

    def _add_file(self) -> bytes:
        name = self._random.choice(("more.txt", "z", "vsa2.dsse.json", "worker.w9.checkpoint"))
        return self._packed(name, self._random.randbytes(20))

    def _rename(self) -> bytes:
        files = dict(self._made.files)
        data = files.pop(self._name())
        return pack_files({**files, self._random.choice(("a", "zz", "link.dsse.jsom")): data})

    def _swap_file(self) -> bytes:
        """Take a file, or all but one, of true evidence about another file."""
        name = self._name()
        if self._random.random() < 0.5:
            return self._packed(name, self._other.files.get(name, b""))
        return pack_files({**self._other.files, name: self._made.files[name]})

    def _sign_anew(self) -> bytes:
        """Change a statement and sign it with a key of the thief, which the file then names."""
        files = dict(self._made.files)
        name = self._random.choice(("vsa.dsse.json", "link.dsse.json"))
        payload = base64.b64decode(json.loads(files[name])["payload"])
        names_thief = self._random.random() < 0.5
        key_id = key_id_of(raw(THIEF if names_thief else MAKER))
        files[name] = seal_statement(self._lie(payload), key_id, THIEF.sign)
        assert IN_TOTO.encode() in files[name]
        return pack_files(files)

    def _other_head(self) -> bytes:
        """Sign a head with a key of the thief, in the name of the worker or of the maker."""
        evidence = self._made.evidence
        tree = self._random.choice(evidence.trees)
        head = open_head(tree, evidence.maker)
        size = head.size + self._random.choice((-1, 0, 1))
        signer = self._random.choice(("", MAKER_NAME))
        data = sign_tree_head(replace(head, size=size), raw(THIEF), THIEF.sign, signer)
        return self._packed(checkpoint_name(tree.worker), data)

    def _change_number(self) -> bytes:
        """Change a number in the zip file's headers."""
        data = bytearray(self._made.data)
        marks = [i for i in range(len(data) - 4) if data[i : i + 2] == b"PK"]
        at = self._random.choice(marks) + self._random.randrange(4, 30)
        value = self._random.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\0"))
        data[at : at + 4] = value
        return bytes(data)

    def _pack_loosely(self) -> bytes:
        """Pack the same files as another program would."""
        target = io.BytesIO()
        names = sorted(self._made.files)
        if self._random.random() < 0.5:
            self._random.shuffle(names)
        method = self._random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(target, "w", method) as file:
            for name in names:
                file.writestr(name, self._made.files[name])
            file.comment = self._random.choice((b"", b"read me"))
        return target.getvalue()


class MakerTamperer(EvidenceTamperer):
    """Changes files of the evidence, and signs the summary of them with the maker's own key."""

    def __init__(self, made: MadeEvidence, other: MadeEvidence, seed: int) -> None:
        super().__init__(made, other, seed)
        self._kinds = (
            self._flip_inside, self._delete_line, self._repeat_line, self._shuffle_lines,
            self._change_line, self._spell, self._remove_file, self._add_file, self._swap_file,
            self._rename, self._other_head, self._own_statement,
        )  # fmt: skip

    def next(self) -> tuple[str, bytes]:
        """Return the name of a change, and the file with it and a good summary."""
        kind, data = super().next()
        at = self._made.evidence.at
        return kind, pack_files(_signed_again(unpack_files(data), at))

    def _own_statement(self) -> bytes:
        """Sign a changed statement of a row, or of the making."""
        name = self._random.choice(("link.dsse.json", "objects.intoto.jsonl"))
        lines = self._made.files[name].splitlines()
        at = self._random.randrange(len(lines))
        payload = self._lie(base64.b64decode(json.loads(lines[at])["payload"]))
        lines[at] = seal_statement(payload, key_id_of(raw(MAKER)), MAKER.sign)
        end = b"\n" if name.endswith("jsonl") else b""
        return self._packed(name, b"".join(line + end for line in lines))


def _signed_again(files: Mapping[str, bytes], at: str) -> Mapping[str, bytes]:
    """Return the files with a summary that names them as they are, if it can be read.

    The time in it is the maker's word: nobody can find that it is another one.
    """
    try:
        summary = json.loads(base64.b64decode(json.loads(files[VSA])["payload"]))
        summary["predicate"]["inputAttestations"] = [
            {"uri": name, "digest": {"sha256": hashlib.sha256(data).hexdigest()}}
            for name, data in sorted(files.items())
            if name != VSA
        ]
        summary["predicate"]["timeVerified"] = at
    except (KeyError, ValueError, TypeError):
        return files
    return {**files, VSA: seal_statement(canonical(summary), key_id_of(raw(MAKER)), MAKER.sign)}


# What a thief would like to say.
_LIES: Final = (
    (b'"FAILED"', b'"PASSED"'),
    (b"qemu/tcg", b"firecracker/kvm"),
    (b'"unknown":1', b'"unknown":0'),
    (b'"guest":5', b'"guest":6'),
    (b'"executed"', b'"hit"'),
    (b"2026-11-30", b"2030-11-30"),
    (b"principal", b"exec"),
    (b"object-with", b"subject-of"),
    (b"index 1", b"index 2"),
)


def deflated_otherwise(made: MadeEvidence, level: int) -> bytes:
    """Return the same evidence with other compressed bytes, as another version of zlib makes."""
    original = zlib.compressobj

    def otherwise(_: int, method: int, bits: int) -> object:
        return original(level, method, bits)

    with mock.patch.object(zlib, "compressobj", otherwise):
        return pack_files(made.files)


def contents(data: bytes) -> Mapping[str, bytes] | None:
    """Return what a common reader of zip files finds; None if it refuses the file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return {name: file.read(name) for name in file.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, zlib.error):
        return None
