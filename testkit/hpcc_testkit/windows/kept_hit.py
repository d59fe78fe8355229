"""What the launcher does with a kept hit, on any `CacheDisk`: the model of launcher/win_hit.h."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.hit_bytes import listing_digest
from hpcc.compilers.scan.windows_names import wide_key
from hpcc.core import CallerError

_HEAD = struct.Struct("<2I32sQ3I8I")
_WITHDRAWN = 1 << 63


class KeptHit(NamedTuple):
    """A decoded file."""

    number: int
    languages: bytes
    request: bytes
    checks: list[Callable[[CacheDisk], bool]]
    output: str
    depfile: str
    object_data: bytes
    depfile_data: bytes
    stdout: bytes
    stderr: bytes


def decode_hit(data: bytes) -> KeptHit:
    """Decode what `encode_hit` made."""
    _, size, digest, number, *rest = _HEAD.unpack_from(data)
    languages, (request, count, path, depfile_path, *texts) = rest[:3], rest[3:]
    assert size == len(data)
    assert digest == hashlib.sha256(data[40:]).digest()
    reader = _Reader(data, _HEAD.size)
    sent = reader.take(request)
    checks = [_check(reader) for _ in range(count)]
    output = reader.take(path + 1)[:-1].decode()
    depfile = reader.take(depfile_path + 1)[:-1].decode() if depfile_path else ""
    object_data, depfile_data, stdout, stderr = map(reader.take, texts)
    assert reader.at == len(data)
    code_pages = b" ".join(b"%d" % n for n in languages)
    outputs = output, depfile, object_data, depfile_data
    return KeptHit(number, code_pages, sent, checks, *outputs, stdout, stderr)


@dataclass
class _Reader:
    data: bytes
    at: int

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))


def _check(reader: _Reader) -> Callable[[CacheDisk], bool]:
    kind, size = reader.numbers("2I")
    path = reader.take(size + 1)[:-1].decode()
    match kind:
        case 1:
            (length,), digest = reader.numbers("Q"), reader.take(32)
            return lambda disk: _has_content(disk, path, length, digest)
        case 2:
            state = reader.numbers("5Q")
            return lambda disk: _has_state(disk, path, state)
        case 3:
            expected = {0: None, 1: False, 2: True}[reader.numbers("I")[0]]
            return lambda disk: disk.is_directory(path) is expected
        case 4:
            listed = reader.take(32)
            return lambda disk: _has_listing(disk, path, listed)
        case 6:
            real = reader.take(reader.numbers("I")[0] + 1)[:-1].decode()
            return lambda disk: disk.is_directory(path) is not None and disk.real(path) == real
        case _:
            assert kind == 5
    count, length = reader.numbers("2I")
    names = {n[1:].decode(): n[0] for n in reader.take(length).split(b"\0")[:-1]}
    assert len(names) == count
    return lambda disk: _lacks(disk, path, names)


def _has_content(disk: CacheDisk, path: str, size: int, digest: bytes) -> bool:
    data = disk.read(path, 1 << 30)
    return data is not None and (len(data), hashlib.sha256(data).digest()) == (size, digest)


def _has_state(disk: CacheDisk, path: str, state: tuple[int, ...]) -> bool:
    times = disk.times(path, is_at_rest=False)
    return times is not None and state == (
        *(times.written_ns, times.changed_ns, times.size),
        *(number & (1 << 64) - 1 for number in times.identity),
    )


def _has_listing(disk: CacheDisk, path: str, digest: bytes) -> bool:
    found = disk.entries(path)
    return found is not None and listing_digest(found) == digest


def _lacks(disk: CacheDisk, path: str, names: dict[str, int]) -> bool:
    found = disk.entries(path)
    if found is None:
        return False
    return not any(
        names.get(wide_key(n), 0) & (2 if is_home else 1) for n, is_home in found.items()
    )


class ModelLauncher:
    """Answers requests from kept hits, and is the daemon's `HitFiles`, by which it tells of them.

    `is_in_use`: a launcher that does not end has the log open.
    """

    def __init__(self, disk: CacheDisk, read: Callable[[bytes], bytes | None]) -> None:
        self._disk, self._read = disk, read
        self.log, self.is_in_use, self.is_locked = b"", False, False

    def answer(self, request: bytes, *, is_put: bool = True) -> KeptHit | None:
        """Return the hit whose object was put in place; None if the daemon is asked.

        Without `is_put` the object cannot be put in place, which comes last.
        """
        data = self._read(request) if self.is_locked else None
        if data is None:
            return None
        hit = decode_hit(data)
        language = self._disk.languages.rpartition(b" ")[2]  # code pages end with a boot
        if hit.request != request or hit.languages.rpartition(b" ")[2] != language:
            return None
        written = [(hit.depfile, hit.depfile_data)] if hit.depfile else []
        written.append((hit.output, hit.object_data))
        there = [self._disk.times(path, is_at_rest=False) for path, _ in written]
        is_ours = all(found is None or (found.is_plain and found.links == 1) for found in there)
        if not is_ours or not all(check(self._disk) for check in hit.checks):
            return None
        self.log += struct.pack("<2Q", hit.number, 134_000_000_000_000_000)
        for path, content in written if is_put else written[:-1]:
            self._disk.write(path, content)
        if not is_put:
            self.log += struct.pack("<2Q", hit.number | _WITHDRAWN, 134_000_000_000_000_000)
            return None
        return hit

    def make(self, directory: str) -> None:
        """See `HitFiles.make`."""
        Path(directory).mkdir(exist_ok=True)

    def take(self, path: str, wait_seconds: float) -> bytes | None:
        """See `HitFiles.take`."""
        del path, wait_seconds
        if self.is_in_use:
            return None
        taken, self.log = self.log, b""
        return taken

    def lock(self, path: str) -> Callable[[], None]:
        """See `HitFiles.lock`."""
        if self.is_locked:
            raise CallerError(f"{path} is in use", reason="already-running")
        self.is_locked = True

        def release() -> None:
            self.is_locked = False

        return release
