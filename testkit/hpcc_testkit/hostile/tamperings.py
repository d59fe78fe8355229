"""Tampers with a trail's files in one of many ways that a seed chooses, without the worker's key.

The party that does this writes the disk, has earlier copies of the directory, and has no key of the
worker. It may change everything in the directory.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.canonical import canonical, record_hash
from hpcc.audit.base.segments import spool_path
from hpcc_testkit.hostile.forged_indexes import Forger, strip_index
from hpcc_testkit.hostile.raw_frames import RawFrame, frames_of
from hpcc_testkit.hostile.tree_tamperings import tree_ways

__all__ = ["RawFrame", "Tamperer", "frames_of"]


class Tamperer:
    """One tampering with the trail in `directory`; `older` is a copy of it from before."""

    def __init__(self, directory: Path, older: Path, seed: int) -> None:
        """Prepare a tampering that the seed alone decides."""
        self._directory, self._older, self._seed = directory, older, seed
        self._random = random.Random(seed)  # noqa: S311 - a choice, no secret
        self._segments = sorted(directory.glob("sealed-*.hpcc"))
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed % 256]) * 32)

    def tamper(self) -> str:
        """Change the files; return what was done."""
        ways: tuple[Callable[[], str], ...] = (
            self._bit, self._bit, self._cut_file, self._remove_file, self._swap_files,
            self._frames, self._frames, self._frames, self._rewrite, self._rewrite, self._append,
            self._append, self._old_file, self._old_directory, self._retired, self._index,
            self._length, self._strip, *tree_ways(self._directory, self._older, self._random),
        )  # fmt: skip
        way = self._random.choice(ways)
        return f"{way.__name__.strip('_')}: {way()}"

    def _file(self) -> Path:
        names = sorted(p for p in self._directory.iterdir() if p.name != "lock" and p.is_file())
        return self._random.choice([p for p in names if p.stat().st_size])

    def _segment(self) -> Path:
        return self._random.choice([*self._segments, spool_path(self._directory)])

    def _bit(self) -> str:
        path = self._file()
        data = bytearray(path.read_bytes())
        place = self._random.randrange(len(data))
        data[place] ^= 1 << self._random.randrange(8)
        path.write_bytes(data)
        return f"{path.name} byte {place}"

    def _cut_file(self) -> str:
        path = self._file()
        size = self._random.randrange(path.stat().st_size)
        os.truncate(path, size)
        return f"{path.name} to {size}"

    def _remove_file(self) -> str:
        path = self._file()
        path.unlink()
        return path.name

    def _swap_files(self) -> str:
        one, two = self._random.sample(self._segments, 2)
        for end in self._random.choice(((".hpcc",), (".hpcc", ".seal"), (".idx",), (".seal",))):
            first, second = one.with_suffix(end), two.with_suffix(end)
            data = first.read_bytes()
            first.write_bytes(second.read_bytes())
            second.write_bytes(data)
        return f"{one.name} {two.name}"

    def _frames(self) -> str:
        """Delete, double, swap or shuffle frames, without mending the chain."""
        path = self._segment()
        frames = frames_of(path.read_bytes())
        place, way = self._random.randrange(len(frames)), self._random.randrange(4)
        if way == 0:
            del frames[place]
        elif way == 1:
            frames.insert(place, self._random.choice(frames))
        elif way == 2 and len(frames) > 1:
            frames[place], frames[place - 1] = frames[place - 1], frames[place]
        else:
            self._random.shuffle(frames)
        path.write_bytes(b"".join(f.encoded() for f in frames))
        return f"{path.name} way {way} at {place}"

    def _signature(self, data: bytes, old: bytes, way: str) -> bytes:
        if way == "own key":
            kind = b"application/vnd.hpcc.audit-record+json"
            message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(data), data)
            return self._key.sign(message)
        return {"none": b"", "old": old, "zeros": bytes(64)}[way]

    def _rewrite(self) -> str:
        """Change a record and mend the chain from there to the segment's end."""
        path, way = self._segment(), self._random.choice(("own key", "none", "old", "zeros"))
        frames = frames_of(path.read_bytes())
        start = self._random.randrange(len(frames))
        new, previous = frames[:start], ""
        for number, frame in enumerate(frames[start:]):
            record = json.loads(frame.data)
            if number == 0:
                record["body"] |= {"principal": "mallory", "tenant": "mallory"}
            else:
                record["previous"] = previous
            data = canonical(record)
            previous = record_hash(data)
            new.append(RawFrame(data, self._signature(data, frame.signature, way)))
        path.write_bytes(b"".join(f.encoded() for f in new))
        return f"{path.name} from {start}, signature {way}"

    def _next(self, change: Callable[[dict[str, Any]], None], way: str) -> None:
        path = spool_path(self._directory)
        last = frames_of(path.read_bytes())[-1]
        record = json.loads(last.data)
        record |= {"sequence": record["sequence"] + 1, "previous": record_hash(last.data)}
        change(record)
        data = canonical(record)
        frame = RawFrame(data, self._signature(data, last.signature, way))
        with path.open("ab") as file:
            file.write(frame.encoded())

    def _append(self) -> str:
        way = self._random.choice(("own key", "none", "old", "zeros"))
        self._next(lambda record: record["body"].update(principal="mallory"), way)
        return f"signature {way}"

    def _old_file(self) -> str:
        path = self._random.choice(sorted(p for p in self._older.iterdir() if p.name != "lock"))
        shutil.copyfile(path, self._directory / path.name)
        return path.name

    def _old_directory(self) -> str:
        shutil.rmtree(self._directory)
        shutil.copytree(self._older, self._directory)
        return "all"

    def _retired(self) -> str:
        """Remove the first segments, and say that retention did."""
        count = self._random.randrange(1, len(self._segments))
        way = self._random.choice(("own key", "none", "old", "zeros", "no event"))
        for path in self._segments[:count]:
            path.unlink()
        if way != "no event":
            until = int(self._segments[count].stem.removeprefix("sealed-"))
            body = {
                "name": "audit-retired", "at": 2.0, "tenant": "", "peer": "", "request_id": "",
                "fields": [["until", str(until)], ["head", "0" * 64]],
            }  # fmt: skip
            self._next(lambda record: record.update(kind="event", body=body), way)
        return f"{count} segments, signature {way}"

    def _index(self) -> str:
        return Forger(self._directory, self._seed).forge()

    def _length(self) -> str:
        """Make a length too large, so that what follows looks torn."""
        path = self._segment()
        frames = frames_of(path.read_bytes())
        start = sum(len(f.encoded()) for f in frames[: self._random.randrange(len(frames))])
        data = bytearray(path.read_bytes())
        data[start + 1] = 0xE0
        path.write_bytes(data)
        return f"{path.name} at {start}"

    def _strip(self) -> str:
        """Make all seals of the first format, remove the open segment, and append unsigned."""
        for path in self._directory.glob("*.seal"):
            strip_index(self._directory, int(path.stem.removeprefix("sealed-")))
        path = spool_path(self._directory)
        frames = [RawFrame(f.data, b"") for f in frames_of(path.read_bytes())]
        path.write_bytes(b"".join(f.encoded() for f in frames))
        self._next(lambda record: record["body"].update(principal="mallory"), "none")
        return "all seals"
