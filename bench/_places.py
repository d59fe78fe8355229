"""Where the bench works: names the file system, and makes an ext4 file system for the bench.

The file system decides what a hit costs: on tmpfs creating a file is nearly free, on ext4 it can
cost more than the rest of a hit. So the report names it, and the ext4 rows get a fresh file system
with the same size on every machine, mounted from an image over a loop device. Its journal and the
loop device work in kernel threads, which no figure counts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from _measure import SkipRow

_IMAGE_BYTES: Final = 4 << 30
_WANTED_BYTES: Final = 6 << 30
_UNMOUNT_TRIES: Final = 50


def file_system(path: Path, mounts: str | None = None) -> str:
    """Return the type of a path's file system, from /proc/self/mountinfo (`mounts`)."""
    if mounts is None:
        mounts = Path("/proc/self/mountinfo").read_text()
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        # proc(5): the mount point is the fifth field, the type the first behind the dash.
        point = before.split()[4].replace("\\040", " ")
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        # The later of two mounts on one point hides the earlier.
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def default_parent() -> Path:
    """Return a tmpfs with room that allows programs, else the directory for temporary files."""
    shared = Path("/dev/shm")
    if shared.is_dir() and os.access(shared, os.W_OK) and file_system(shared) == "tmpfs":
        found = os.statvfs(shared)
        has_room = found.f_bavail * found.f_frsize >= _WANTED_BYTES
        if has_room and not found.f_flag & os.ST_NOEXEC:
            return shared
    return Path(tempfile.gettempdir())


@contextmanager
def ext4(scratch: Path) -> Iterator[Path]:
    """Yield a new ext4 under `scratch`; at the end, unmount it and free its loop device.

    Raises:
        SkipRow: it cannot be made on this machine.
    """
    if os.geteuid() != 0:
        raise SkipRow("mounting an ext4 image needs root")
    for program in ("mkfs.ext4", "mount", "umount", "losetup"):
        if shutil.which(program) is None:
            raise SkipRow(f"mounting an ext4 image needs {program}")
    image, point = scratch / "ext4.img", scratch / "ext4"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    try:
        _do("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        # `-o loop` makes a device that the kernel frees by itself at the unmount.
        _do("mount", "-o", "loop", str(image), str(point))
        try:
            yield point
        finally:
            _unmount(point)
    finally:
        _free_loops(image)
        image.unlink()


def _do(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    if done.returncode:
        raise SkipRow(f"{argv[0]}: {done.stderr.strip()[:200]}")


def _unmount(point: Path) -> None:
    for _ in range(_UNMOUNT_TRIES):
        if subprocess.run(["umount", point], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)  # a process that was just ended may still exist
    # A lazy unmount removes it from the tree now, and from the kernel after the last user.
    subprocess.run(["umount", "--lazy", point], check=False)


def _free_loops(image: Path) -> None:
    found = subprocess.run(
        ["losetup", "--noheadings", "--output=NAME", "--associated", image],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    for device in found.stdout.split():
        subprocess.run(["losetup", "--detach", device], check=False)
