"""The store of snapshots: complete or absent, checked once per process, bounded, private."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import IntegrityError
from hpcc.files.tried_lock import tried_lock
from hpcc.ports import GuestSpec
from hpcc.runtime.host.leftovers import new_directory, sweep
from hpcc.runtime.host.tools import key_of
from hpcc.runtime.vm.snapshot_files import MAX_STATE_BYTES, IsStopped, digest_of, never, seal

DEFAULT_MAX_BYTES: Final = 8 << 30
MEMORY: Final = "memory"
STATE: Final = "state"
_RECORD: Final = "snapshot.json"
_LOCK: Final = ".making"
_MAX_RECORD_BYTES: Final = 64 << 10
_MAX_MEMORY_BYTES: Final = 1 << 40
_SECTOR_BYTES: Final = 512  # the unit of st_blocks
# Raised when the content of a snapshot changes and no part of its key does.
_FORMAT: Final = "1"
_CPU_LINES: Final = frozenset({"vendor_id", "model name", "stepping", "microcode", "flags"})
_KEY: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A booted guest that waits for its host, as two files.

    `digest` names both: `sha256:…`. `token` is the one that the saved agent expects.
    """

    key: str
    memory: Path
    state: Path
    token: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The files that a VMM wrote. `publish` copies them; they vanish with the VMM's directory."""

    memory: Path
    state: Path
    token: str


@dataclass(frozen=True, slots=True)
class _Pin:
    """The stat of a checked file. Only its owner can change the file, and then the stat changes."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    owner: int
    mode: int

    @classmethod
    def of(cls, path: Path) -> _Pin:
        s = path.lstat()
        return cls(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_uid, s.st_mode)


def snapshot_key(spec: GuestSpec, *parts: str) -> str:
    """Return a key for what a snapshot depends on: `parts`, image file, CPU and kernel.

    Raises:
        OSError: the image's file is missing.
    """
    image = spec.image_path.resolve(strict=True)
    status = image.stat()
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = sorted({line for line in cpuinfo if line.partition("\t")[0].strip() in _CPU_LINES})
    # The file as well as the digest: the guest's kernel has read from this file and will go on.
    file = (image, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    machine = (str(spec.memory_mib), str(spec.vcpus), platform.release(), platform.version())
    return key_of(
        [_FORMAT, spec.image.value, *map(str, file), *machine, *cpu, *parts],
    )


class SnapshotStore:
    """Directories `<key>/{memory,state,snapshot.json}` in a directory of mode 0700.

    Methods block on the disk, so call them in a thread. Several processes may share a store. Beyond
    `max_bytes` of disk the longest unused snapshots are removed.
    """

    def __init__(self, directory: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._directory, self._max_bytes = directory, max_bytes
        self._checked: dict[str, tuple[Snapshot, tuple[_Pin, ...]]] = {}

    def open(self) -> None:
        """Create the directory; remove what killed processes left, and snapshots without an image.

        Raises:
            OSError: the directory cannot be created or is another user's.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory.chmod(0o700)  # the directory may have existed
        sweep(self._directory)
        self.evict()

    def find(self, key: str, is_stopped: IsStopped = never) -> Snapshot | None:
        """Return the snapshot if it is unchanged since it was made; None if there is none.

        The first time in this process its digest is computed (0.1 s for 100 MB). Later calls
        compare owner, mode, inode, size and time of its files with the first time.

        Raises:
            IntegrityError: the snapshot is damaged; it has been removed.
            InterruptedError: `is_stopped` returned True.
        """
        directory = self._directory / key
        if not (directory / _RECORD).exists():
            self._checked.pop(key, None)
            return None
        try:
            found = self._found(key, directory, is_stopped)
        except InterruptedError:
            raise
        except (IntegrityError, OSError, ValueError, KeyError, TypeError) as error:
            self.drop(key)
            raise IntegrityError(f"snapshot {key}: {error}", reason="snapshot") from error
        with suppress(OSError):
            os.utime(directory)  # last use
        return found

    def _found(self, key: str, directory: Path, is_stopped: IsStopped) -> Snapshot:
        files = (directory / MEMORY, directory / STATE)
        pins = tuple(_Pin.of(f) for f in files)
        known = self._checked.get(key)
        if known is not None and known[1] == pins:
            return known[0]
        if any(p.owner != os.geteuid() or p.mode & 0o222 for p in pins):
            raise IntegrityError("its files have another owner or are writable", reason="snapshot")
        record = _read_record(directory / _RECORD)
        digests = (
            digest_of(files[0], max_bytes=_MAX_MEMORY_BYTES, is_stopped=is_stopped),
            digest_of(files[1], max_bytes=MAX_STATE_BYTES),
        )
        if digests != (record["memory_digest"], record["state_digest"]):
            raise IntegrityError("its bytes have changed", reason="snapshot")
        snapshot = _snapshot(key, directory, str(record["token"]), digests)
        self._checked[key] = snapshot, pins
        return snapshot

    def publish(
        self,
        key: str,
        saved: Saved,
        *,
        memory_bytes: int,
        image: Path,
        is_stopped: IsStopped = never,
    ) -> Snapshot:
        """Copy and seal what a VMM wrote, and store it. The first of several makers wins.

        `memory_bytes` is the exact size that the memory file must have.

        Raises:
            IntegrityError: the VMM wrote something else.
            InterruptedError: `is_stopped` returned True.
            OSError: the disk failed, or the snapshot is larger than the store.
        """
        work = new_directory(self._directory)
        try:
            made = work / key
            made.mkdir(mode=0o700)
            if saved.memory.lstat().st_size != memory_bytes:
                raise IntegrityError("memory of another size", reason="snapshot")
            digests = (
                seal(saved.memory, made / MEMORY, max_bytes=memory_bytes, is_stopped=is_stopped),
                seal(saved.state, made / STATE, max_bytes=MAX_STATE_BYTES),
            )
            record = {
                "memory_digest": digests[0], "state_digest": digests[1],
                "token": saved.token, "image": str(image),
            }  # fmt: skip
            (made / _RECORD).write_text(json.dumps(record))
            target = self._directory / key
            if not (target / _RECORD).exists():
                shutil.rmtree(target, ignore_errors=True)
            with suppress(OSError):  # another was first, or `find` below reports the problem
                made.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self.evict(keep=key)
        found = self.find(key, is_stopped)
        if found is None:
            raise OSError(f"snapshot {key} was removed at once: it is larger than the store")
        return found

    def drop(self, key: str) -> None:
        """Remove a snapshot. Guests that were restored from it keep the memory they have mapped."""
        self._checked.pop(key, None)
        doomed = self._directory / key
        # The record first: without it the rest is ignored, wherever this stops.
        with suppress(OSError):
            (doomed / _RECORD).unlink()
        shutil.rmtree(doomed, ignore_errors=True)

    def evict(self, keep: str = "") -> None:
        """Remove snapshots whose image is gone, and the longest unused beyond the bound."""
        rows: list[tuple[float, str, int]] = []
        for directory in self._directory.iterdir():
            if not _KEY.fullmatch(directory.name):
                continue
            try:
                image = Path(str(_read_record(directory / _RECORD)["image"]))
                rows.append((directory.stat().st_mtime, directory.name, _disk_bytes(directory)))
            except (OSError, ValueError, KeyError, TypeError):
                self.drop(directory.name)
                continue
            if not image.is_file():
                rows.pop()
                self.drop(directory.name)
        total = sum(size for _, _, size in rows)
        for _, key, size in sorted(rows):
            if total <= self._max_bytes:
                return
            if key != keep or size > self._max_bytes:
                self.drop(key)
                total -= size

    def disk_bytes(self) -> int:
        """Return the bytes of disk that all snapshots use; 0 if there is no store yet."""
        try:
            found = [d for d in self._directory.iterdir() if _KEY.fullmatch(d.name)]
            return sum(_disk_bytes(d) for d in found)
        except OSError:
            return 0

    @contextmanager
    def making(self) -> Iterator[bool]:
        """Hold the right to make snapshots; yields False if another process has it.

        One process on this machine makes snapshots at a time.
        """
        with tried_lock(self._directory / _LOCK) as is_held:
            yield is_held


def _snapshot(key: str, directory: Path, token: str, digests: tuple[str, str]) -> Snapshot:
    both = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Snapshot(
        key=key,
        memory=directory / MEMORY,
        state=directory / STATE,
        token=token,
        digest="sha256:" + both,
    )


def _read_record(path: Path) -> dict[str, object]:
    if path.lstat().st_size > _MAX_RECORD_BYTES:
        raise ValueError("an overlong record")
    record = json.loads(path.read_text())
    if not isinstance(record, dict):
        raise TypeError("not a record")
    return record


def _disk_bytes(directory: Path) -> int:
    return sum(p.lstat().st_blocks * _SECTOR_BYTES for p in directory.iterdir())
