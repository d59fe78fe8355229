"""Forges the index of a sealed segment, in one of many ways that a seed chooses.

Each way changes files of a trail as somebody can who writes its disk and does not have the worker's
key. None changes a segment, so the truth stays what was written.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import canonical
from hpcc.audit.base.heads import HeadSigner, head_text
from hpcc.audit.base.index_statement import IndexFacts, index_path, sign_index, statement_table
from hpcc.audit.base.segments import seal_path, seals
from hpcc_testkit.farm.audit_rows import KEY

_COLUMNS: Final = (
    "place", "hash", "kind", "at", "exit_code", "row_id", "action_digest", "request_id", "worker",
    "tenant", "principal", "build_id", "image_digest", "cache_status", "guest_id", "isolation",
    "reuse", "reason", "name", "peer",
)  # fmt: skip


class Forger:
    """Chooses a segment and a way by a seed, and describes what it did."""

    def __init__(self, directory: Path, seed: int) -> None:
        """Prepare to forge an index of the trail in `directory`."""
        self._random, self._directory = random.Random(seed), directory  # noqa: S311 - a choice of forgeries, no secret
        self._seals = list(seals(directory))
        self._seal = self._random.choice(self._seals)
        self._index = index_path(directory, self._seal.first)

    def forge(self) -> str:
        """Change the files; return what was done."""
        way: Callable[[], str] = self._random.choice(
            (
                self._column, self._column, self._column, self._row, self._row, self._text,
                self._output, self._schema, self._bit, self._bit, self._size, self._other,
                self._kind_of_file, self._late_statement, self._seal_of_another_key,
                self._seal_of_format_1,
            )
        )  # fmt: skip
        return f"segment {self._seal.first}: {way()}"

    def _sql(self, script: str, *values: object) -> str:
        with closing(sqlite3.connect(self._index)) as db:
            db.execute(script, values)
            db.commit()
        return f"{script} {values}"

    def _number(self) -> int:
        return self._random.randrange(self._seal.first, self._seal.end)

    def _column(self) -> str:
        column, number = self._random.choice(_COLUMNS), self._number()
        if self._random.random() < 0.5:
            value = {"hash": bytes(32)}.get(column, 7)
            return self._sql(f"UPDATE record SET {column} = ? WHERE sequence = ?", value, number)  # noqa: S608 - a test's
        return self._sql(
            f"UPDATE record SET {column} = (SELECT {column} FROM record WHERE sequence = ?)"  # noqa: S608 - a test's
            " WHERE sequence = ?",
            self._number(),
            number,
        )

    def _row(self) -> str:
        number = self._number()
        way = self._random.randrange(4)
        if way == 0:
            return self._sql("DELETE FROM record WHERE sequence = ?", number)
        if way == 1:
            return self._sql(
                "UPDATE record SET sequence = sequence + 900 WHERE sequence = ?", number
            )
        if way == 2:
            return self._sql("DELETE FROM record WHERE sequence >= ?", number)
        columns = ", ".join(_COLUMNS)
        return self._sql(
            f"INSERT INTO record (sequence, {columns}) SELECT sequence + 900, {columns}"  # noqa: S608 - a test's
            " FROM record WHERE sequence = ?",
            number,
        )

    def _text(self) -> str:
        way = self._random.randrange(3)
        if way == 0:
            return self._sql(
                "UPDATE text SET value = value || 'x' WHERE id = ?", self._random.randrange(9)
            )
        if way == 1:
            return self._sql("DELETE FROM text WHERE id = ?", self._random.randrange(9))
        return self._sql("UPDATE text SET value = 'somebody'")

    def _output(self) -> str:
        if self._random.random() < 0.5:
            return self._sql("DELETE FROM output")
        return self._sql("UPDATE output SET sequence = ?", self._number())

    def _schema(self) -> str:
        script = self._random.choice(
            (
                "CREATE VIEW other AS SELECT * FROM record",
                "CREATE TRIGGER t AFTER INSERT ON record BEGIN DELETE FROM record; END",
                "DROP TABLE output",
                "PRAGMA user_version = 2",
                "CREATE UNIQUE INDEX i ON record (place)",
            )
        )
        return self._sql(script)

    def _bit(self) -> str:
        data = bytearray(self._index.read_bytes())
        place = self._random.randrange(len(data))
        data[place] ^= 1 << self._random.randrange(8)
        self._index.write_bytes(data)
        return f"a bit of byte {place}"

    def _size(self) -> str:
        data = self._index.read_bytes()
        size = self._random.choice((0, 1, 16, 100, len(data) // 2, len(data) - 1, len(data) + 1))
        self._index.write_bytes((data + bytes(1))[:size])
        return f"{size} of {len(data)} bytes"

    def _other(self) -> str:
        other = self._random.choice([s for s in self._seals if s.first != self._seal.first])
        self._index.write_bytes(index_path(self._directory, other.first).read_bytes())
        return f"the index of segment {other.first}"

    def _kind_of_file(self) -> str:
        way = self._random.choice(("absent", "pipe", "directory", "link"))
        self._index.unlink()
        if way == "pipe":
            os.mkfifo(self._index)
        elif way == "directory":
            self._index.mkdir()
        elif way == "link":
            self._index.symlink_to("/dev/zero")
        return way

    def _forged_facts(self) -> IndexFacts:
        """Return an index without one row."""
        self._sql("DELETE FROM record WHERE sequence = ?", self._number())
        return IndexFacts(data=self._index.read_bytes(), since=0.0, until=1e12)

    def _statement(self, worker: str = "") -> dict[str, object]:
        signer = HeadSigner(worker or self._seal.signed.worker, Ed25519PrivateKey.generate())
        return statement_table(
            sign_index(signer, self._seal.first, self._seal.signed.head, self._forged_facts())
        )

    def _late_statement(self) -> str:
        table = self._statement()
        way = self._random.choice(("own key", "worker's key named", "worker's signature", "junk"))
        if way == "worker's key named":
            table["key"] = self._seal.signed.key.hex()
        if way == "worker's signature":
            table |= {
                "key": self._seal.signed.key.hex(),
                "signature": self._seal.signed.signature.hex(),
            }
        data = b"junk" if way == "junk" else canonical(table)
        self._index.with_suffix(".idxseal").write_bytes(data)
        return f"a statement beside the seal: {way}"

    def _seal_of_another_key(self) -> str:
        path = seal_path(self._directory, self._seal.first)
        table = json.loads(path.read_bytes())
        path.write_bytes(canonical({**table, "index": self._statement()}))
        return "a statement of another key in the seal"

    def _seal_of_format_1(self) -> str:
        self._forged_facts()
        strip_index(self._directory, self._seal.first)
        return "a seal as of an earlier version"


def strip_index(
    directory: Path, first: int, key: Ed25519PrivateKey | None = None, *, is_signing: bool = False
) -> None:
    """Make a seal what an earlier version wrote, of format 1 or, with `is_signing`, 2.

    The earlier version signed the head only. Without its key the signature is another one.
    """
    path = seal_path(directory, first)
    table = json.loads(path.read_bytes())
    if "signed" not in table:
        names = ("at", "count", "head", "key", "signature", "worker")
        table["signed"] = {name: table[name] for name in names} | {"format": 1}
    if key is not None:
        said = table["signed"]
        signer = HeadSigner(said["worker"], key)
        table["signed"] = json.loads(
            head_text(signer.sign(said["count"], said["head"], said["at"]))
        )
    names = ("first", "previous", "signed", "size_bytes", *(("index",) if is_signing else ()))
    path.write_bytes(canonical({**{n: table[n] for n in names}, "format": 2 if is_signing else 1}))


def as_of_an_earlier_version(directory: Path) -> None:
    """Make a trail what an earlier version left: seals of format 1, and one `index.sqlite`."""
    for seal in list(seals(directory)):
        strip_index(directory, seal.first, KEY)
        index_path(directory, seal.first).unlink(missing_ok=True)
    assert len(list(seals(directory))) > 0
    (directory / "index.sqlite").write_bytes(b"rows that nobody wrote")


def restore(copy: Path, directory: Path) -> None:
    """Put a trail back as it is in `copy`."""
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)
