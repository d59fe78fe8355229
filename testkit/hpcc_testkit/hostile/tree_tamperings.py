"""Tampers with what a trail has besides records and indexes: the tree, its head, the signing event.

As in `tamperings`: the party writes the disk and has earlier copies, and has no key of the worker.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import GENESIS, canonical, record_hash
from hpcc.audit.base.heads import HeadSigner, head_text
from hpcc.audit.tree.head import TreeHead, sign_tree_head
from hpcc_testkit.hostile.raw_frames import RawFrame, frames_of

_HASH = 32
_THIEF = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
_TREE = "tree-0"


def tree_ways(directory: Path, older: Path, chance: random.Random) -> tuple[Callable[[], str], ...]:
    """Return the ways, each of which changes the trail in `directory` and says how."""
    one = _TreeTamperer(directory, older, chance)
    return (
        one.leaf, one.leaves, one.head, one.old_head, one.event, one.event, one.signer,
        one.own_tree,
    )  # fmt: skip


class _TreeTamperer:
    def __init__(self, directory: Path, older: Path, chance: random.Random) -> None:
        self._directory, self._older, self._random = directory, older, chance

    def _leaves(self) -> list[bytes]:
        data = (self._directory / _TREE).read_bytes()
        return [data[i : i + _HASH] for i in range(0, len(data), _HASH)]

    def _write(self, leaves: list[bytes]) -> None:
        (self._directory / _TREE).write_bytes(b"".join(leaves))

    def leaf(self) -> str:
        """Another hash in place of a leaf."""
        leaves = self._leaves()
        place = self._random.randrange(len(leaves))
        leaves[place] = self._random.randbytes(_HASH)
        self._write(leaves)
        return f"leaf {place}"

    def leaves(self) -> str:
        """Leaves deleted, doubled, swapped or shuffled."""
        leaves, way = self._leaves(), self._random.randrange(4)
        place = self._random.randrange(len(leaves))
        if way == 0:
            del leaves[place]
        elif way == 1:
            leaves.insert(place, leaves[place])
        elif way == 2:
            leaves[place], leaves[place - 1] = leaves[place - 1], leaves[place]
        else:
            self._random.shuffle(leaves)
        self._write(leaves)
        return f"leaves way {way} at {place}"

    def head(self) -> str:
        """A number or a text of the signed head is another one, or another key signed it."""
        path = self._directory / "tree.head"
        text, _, signature = path.read_text().partition("\n\n")
        lines, way = text.split("\n"), self._random.randrange(6)
        if way < 5:
            lines[1 + way] = {
                0: str(int(lines[1]) - 1), 1: lines[2][::-1], 2: "first 3",
                3: f"chain {'0' * 64}", 4: "at 1.0",
            }[way]  # fmt: skip
            path.write_text("\n".join(lines) + "\n\n" + signature)
        else:
            path.write_bytes(self._signed(int(lines[1]), self._random.randbytes(_HASH)))
        return f"way {way}"

    def _signed(self, size: int, root: bytes) -> bytes:
        made = TreeHead(worker="w1", size=size, root=root, first=0, head=GENESIS, at=1.0)
        return sign_tree_head(made, _THIEF.public_key().public_bytes_raw(), _THIEF.sign)

    def old_head(self) -> str:
        """Head, hashes or both as they were before."""
        names = self._random.choice((("tree.head",), (_TREE,), ("tree.head", _TREE)))
        for name in names:
            data = (self._older / name).read_bytes()
            (self._directory / name).write_bytes(data)
        return ", ".join(names)

    def own_tree(self) -> str:
        """A tree of other leaves with a head that another key signed."""
        count = self._random.randrange(1, 30)
        leaves = [self._random.randbytes(_HASH) for _ in range(count)]
        self._write(leaves)
        root = hashlib.sha256(b"\1" + b"".join(leaves[:2])).digest()
        (self._directory / "tree.head").write_bytes(self._signed(count, root))
        return f"{count} leaves"

    def event(self) -> str:
        """Take the signing event away or change it, and mend the chain of its segment."""
        path = min(self._directory.glob("sealed-*.hpcc"))
        frames = frames_of(path.read_bytes())
        way = self._random.choice(("away", "later", "renamed", "not mended"))
        records = [json.loads(frame.data) for frame in frames]
        if way in {"away", "not mended"}:
            del records[0], frames[0]
        elif way == "later":
            records[0]["body"]["fields"][0][1] = "4"
        else:
            records[0]["body"]["name"] = "token-refused"
        keeps, new, previous = self._random.random() < 0.5, list[RawFrame](), GENESIS
        for number, (record, frame) in enumerate(zip(records, frames, strict=True)):
            if way != "not mended":
                record |= {"previous": previous, "sequence": number}
            data = canonical(record)
            previous = record_hash(data)
            new.append(RawFrame(data, frame.signature if keeps else b""))
        path.write_bytes(b"".join(frame.encoded() for frame in new))
        return f"{way}, {'old' if keeps else 'no'} signatures"

    def signer(self) -> str:
        """The file that names the key names another one."""
        made = HeadSigner("w1", _THIEF).sign(0, GENESIS, 1.0)
        (self._directory / "signer").write_bytes(head_text(made))
        return "another key"
