"""The tree over a trail on disk: `tree-0`, `tree-1`, …, and `tree.head`, the last head it signed.

`tree-L` has the hashes of the perfect subtrees of 256**L leaves, one after the other. The hashes of
all others are computed from at most 128 of them. So a leaf takes 32.1 bytes, a proof reads some
kilobytes, and a start reads none of the leaves that a seal covers.

The files follow the segments, and can be made from them. What proves something is the signed head:
a start compares the files with it, and makes them anew if they differ.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.heads import signed_head
from hpcc.audit.base.segments import open_trail_file, seals
from hpcc.audit.base.trail import walk_segment
from hpcc.audit.base.trail_signer import SignerError, TrailEnd, TrailSigner, WantedTree
from hpcc.audit.tree.head import (
    MAX_CHECKPOINT_BYTES,
    TreeHead,
    read_tree_head,
    record_leaf,
    sign_tree_head,
    start_leaf,
)
from hpcc.audit.tree.kept import STEP, folded
from hpcc.audit.tree.merkle import HASH_BYTES, ProofMaker, TreeRange, node_hash
from hpcc.files import open_file, sync_file
from hpcc.files.whole import FaultPoint, Sync, no_fault, whole_file
from hpcc.ports import SignedHead, SignedTree, TreeMark

HEAD_NAME: Final = "tree.head"
_HEAD: Final = HEAD_NAME
# 256**8 leaves are more than a trail can have.
_LEVELS: Final = 8


class HistoryTree(ProofMaker):
    """The tree of one trail. One thread appends; others may ask for proofs."""

    def __init__(self, directory: Path, signer: TrailSigner, fault: FaultPoint = no_fault) -> None:
        self._directory, self._signer, self._fault = directory, signer, fault
        self._lock = threading.RLock()
        self._files: list[_Hashes] = []
        # The record that is the second leaf, and the hash of the last record.
        self.first, self._chain = 0, ""
        self._signed: TreeHead | None = None
        # The hashes of the perfect subtrees that the size consists of, largest first.
        self._peaks: list[bytes] = []

    @property
    def size(self) -> int:
        """Return the number of leaves."""
        return self._files[0].count if self._files else 0

    @property
    def size_bytes(self) -> int:
        """Return what the files take of the disk."""
        return sum(file.count for file in list(self._files)) * HASH_BYTES

    def perfect(self, level: int, index: int) -> bytes:
        step, rest = divmod(level, STEP)
        return folded(self._files[step].read(index << rest, 1 << rest))

    def begin(self, count: int, head: str) -> None:
        """Load the tree of a trail whose seals lead to record `count` - 1 of hash `head`.

        Leaves behind that are forgotten: the records that no seal covers are added again. Without
        a signed head the tree begins here.

        Raises:
            AuditDamagedError: the files are not those of the head, nor can be made anew.
            OSError: they cannot be read or written.
        """
        with self._lock:
            self._signed = self._read_head()
            if self._signed is None:
                self._reset(count, head)
                return
            self.first, self._chain = self._signed.first, head
            sealed = count - self.first + 1
            if sealed < 1:
                raise AuditDamagedError(self._behind(count))
            self._open()
            if self.size < sealed or not self._is_whole(sealed):
                self._remake(count)
            for level, file in enumerate(self._files):
                file.cut(sealed >> (STEP * level))
            self._peaks = self.peaks()

    def _is_whole(self, size: int) -> bool:
        """Return whether each level has the hashes of `size` leaves, and those of the signed head.

        A head that a crash left without its seal covers more: `check` compares it.
        """
        if any(f.count < size >> (STEP * level) for level, f in enumerate(self._files)):
            return False
        signed = self._signed
        return signed is None or signed.size > size or self.root(signed.size) == signed.root

    def append(self, leaves: list[bytes], chain: str) -> None:
        """Add leaves that are durable as records; `chain` is the hash of the last one.

        The files follow with `flush`, and nothing is read from them: who changes them while they
        are used changes no head.
        """
        with self._lock:
            for leaf in leaves:
                self._add(leaf)
            self._chain = chain if leaves else self._chain

    def _add(self, leaf: bytes) -> None:
        rest, level, node = self.size, 0, leaf
        self._files[0].add(leaf)
        while rest & 1:
            node = node_hash(self._peaks.pop(), node)
            rest, level = rest >> 1, level + 1
            if level % STEP == 0 and level // STEP < _LEVELS:
                self._files[level // STEP].add(node)
        self._peaks.append(node)

    def flush(self) -> None:
        """Write the hashes that are only in memory, as far as the disk has room."""
        with self._lock, suppress(OSError):
            self._fault("tree-flush")
            for file in self._files:
                file.flush()

    def check(self, count: int) -> None:
        """Compare the tree with its last signed head, now that all records are leaves.

        Raises:
            AuditDamagedError: records are missing that the head covers, or were changed.
        """
        with self._lock:
            signed = self._signed
            if signed is None:
                return
            if signed.size > self.size:
                raise AuditDamagedError(self._behind(count))
            if self.root(signed.size) != signed.root:
                raise AuditDamagedError(
                    f"{self._directory}: the records differ from those of the head that this worker"
                    f" signed in {_HEAD}: the trail was changed"
                )

    def found(self, at: float) -> None:
        """Sign a head at the first start, so that a later one knows where the tree begins.

        An earlier version may run in between, seal segments, and not know of the tree. Without
        room on the disk the first seal does it.
        """
        if self._signed is None:
            with suppress(OSError, SignerError):
                self.seal(at)

    def _behind(self, count: int) -> str:
        had = self._signed.count if self._signed else 0
        return (
            f"{self._directory}: the end is missing: {_HEAD} is of {had} records, the trail has"
            f" {count}. Keep a copy of the directory as evidence; docs/operate.md says how to go on"
        )

    def seal(self, at: float) -> None:
        """Make the files durable, and sign the head that the next start compares them with.

        Raises:
            OSError: they are not durable.
        """
        with self._lock:
            for file in self._files:
                file.flush()
            head = self._head(at)
        # Without the lock, because heartbeats need it: a slow disk must not end a worker's lease.
        # No leaf is added meanwhile, as the one thread that adds them is here.
        for file in self._files:
            self._fault("tree-sync")
            file.sync()
        with whole_file(
            self._directory / _HEAD,
            sync=Sync.NAME,
            aside=self._directory / f".{_HEAD}",
            fault=lambda step: self._fault(f"tree-{step}"),
        ) as written:
            written.write(self._sign(head))
        self._signed = head

    def prove(self, held: TreeMark | None, at: float) -> SignedTree:
        """Return the signed head, and the proof that it contains the one that a scheduler holds.

        Without a proof where that one is not an earlier head of this tree.

        Raises:
            OSError: the files cannot be read.
        """
        with self._lock:
            head = self._head(at)
            if self.root() != head.root:
                raise OSError(errno.EIO, "the files of the tree were changed while they were used")
            proof: tuple[bytes, ...] = ()
            if held is not None and held.size <= head.size:
                proof = tuple(self.consistency(held.size, head.size))
            # With the lock: a signer signs only heads of the last two groups.
            checkpoint = self._sign(head)
        return SignedTree(
            worker=head.worker, checkpoint=checkpoint, key=self._signer.public_key,
            after=held, proof=proof,
        )  # fmt: skip

    def anchor(self, at: float) -> SignedHead:
        """Return the signed end of the chain.

        Raises:
            SignerError: the signer gives no answer.
        """
        with self._lock:
            return signed_head(self._signer, self.first + self.size - 1, self._chain, at)

    def end(self, first: int, previous: str, size_bytes: int, signed_from: int | None) -> TrailEnd:
        """Return where the trail ends, whose open segment is given."""
        with self._lock:
            return TrailEnd(
                count=self.first + self.size - 1, head=self._chain, tree_first=self.first,
                peaks=tuple(self._peaks), first=first, previous=previous, size_bytes=size_bytes,
                signed_from=signed_from,
            )  # fmt: skip

    def _head(self, at: float) -> TreeHead:
        root = TreeRange(self.size, self._peaks).root()
        return TreeHead(
            worker=self._signer.worker, size=self.size, root=root, first=self.first,
            head=self._chain, at=at,
        )  # fmt: skip

    def _sign(self, head: TreeHead) -> bytes:
        wanted = WantedTree(head.count, head.at)
        sign = partial(self._signer.sign_text, wanted)
        return sign_tree_head(head, self._signer.public_key, sign)

    def _read_head(self) -> TreeHead | None:
        try:
            with open_trail_file(self._directory / _HEAD) as file:
                data = file.read(MAX_CHECKPOINT_BYTES + 1)
        except FileNotFoundError:
            return None
        try:
            return read_tree_head(self._signer.worker, data, self._signer.public_key)
        except AuditDamagedError as error:
            raise AuditDamagedError(f"{self._directory / _HEAD}: {error}") from error

    def _open(self) -> None:
        self.close()
        self._files = [_Hashes(self._directory / f"tree-{level}") for level in range(_LEVELS)]

    def _reset(self, first: int, head: str) -> None:
        """Begin the tree with the chain of `first` records that ends in `head`."""
        self._open()
        for file in self._files:
            file.cut(0)
        self._peaks = []
        self.first, self._chain = first, head
        self.append([start_leaf(first, head)], head)

    def _remake(self, count: int) -> None:
        """Make the files anew from the sealed segments.

        Raises:
            AuditDamagedError: a segment was changed or is missing.
        """
        first, chain = self.first, self._chain
        started = [s for s in seals(self._directory) if s.end > first]
        previous = next((s.previous for s in started), chain)
        self._reset(first, previous)
        for seal in started:
            try:
                for item in walk_segment(self._directory, seal):
                    self.append([record_leaf(item.record)], item.record.hash)
            except FileNotFoundError as error:
                raise AuditDamagedError(
                    f"{self._directory}: the hashes of the tree were changed or are missing, and so"
                    f" are the records from {seal.first} on, which retention removed. Restore the"
                    " tree-… files from a copy; docs/operate.md says how to go on without"
                ) from error
        if self.size != count - first + 1 or not self._is_whole(self.size):
            raise AuditDamagedError(
                f"{self._directory}: the records are not those of the head in {_HEAD}"
            )

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for file in self._files:
                file.close()
            self._files = []


class _Hashes:
    """One level: hashes in a file, and those at the end that are not written yet.

    Nothing is changed on the disk before `flush`.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, -1
        # How many of the file count, and how many bytes it has.
        self._kept = self._size = 0
        self._rest: list[bytes] = []
        with suppress(FileNotFoundError):
            self._file = open_file(path, os.O_RDWR)
            self._size = os.fstat(self._file).st_size
            self._kept = self._size // HASH_BYTES

    @property
    def count(self) -> int:
        """Return the number of hashes."""
        return self._kept + len(self._rest)

    def read(self, index: int, count: int) -> list[bytes]:
        """Return `count` hashes from `index` on, which exist."""
        on_disk = max(min(self._kept - index, count), 0)
        data = b""
        if on_disk:
            os.lseek(self._file, index * HASH_BYTES, os.SEEK_SET)
            data = os.read(self._file, on_disk * HASH_BYTES)
        found = [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]
        begin = max(index - self._kept, 0)
        found += self._rest[begin : begin + count - on_disk]
        if len(found) != count or len(found[-1]) != HASH_BYTES:
            raise OSError(errno.EIO, "the files of the tree are shorter than they were")
        return found

    def add(self, value: bytes) -> None:
        """Add a hash, which `flush` writes."""
        self._rest.append(value)

    def flush(self) -> None:
        """Write what is not written yet, and cut off what does not count.

        Raises:
            OSError: it is not written; the next call tries again.
        """
        end = self._kept * HASH_BYTES
        if self._size > end:
            os.ftruncate(self._file, end)
            self._size = end
        if not self._rest:
            return
        if self._file < 0:
            self._file = open_file(self._path, os.O_RDWR | os.O_CREAT)
        data = b"".join(self._rest)
        os.lseek(self._file, end, os.SEEK_SET)
        while data:
            data = data[os.write(self._file, data) :]
        self._kept += len(self._rest)
        self._size, self._rest = self._kept * HASH_BYTES, []

    def sync(self) -> None:
        """Make all hashes durable.

        Raises:
            OSError: they are not.
        """
        self.flush()
        if self._file >= 0:
            sync_file(self._file)

    def cut(self, count: int) -> None:
        """Forget the hashes from number `count` on."""
        del self._rest[max(count - self._kept, 0) :]
        self._kept = min(self._kept, count)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
