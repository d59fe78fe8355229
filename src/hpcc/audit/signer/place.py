"""Where a signer's files are, and how the key of an earlier version gets there.

For the key file `NAME.key` they are in `NAME.signer` beside it: `key` and the two files of the
state. The key is moved once, by a rename. A note stays in its place: an earlier version stops at
it, where it would make another key otherwise. To go back, move `key` over the note. The next start
of this version takes it again, and begins a state anew.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Final

from hpcc import __version__
from hpcc.core import CallerError, InfrastructureError
from hpcc.files import access_of, open_file, privacy_remedy, sync_directory
from hpcc.files.whole import Sync, write_whole
from hpcc.wire.helper import FIRST_ID

KEY_NAME: Final = "key"
STATE_NAMES: Final = ("state-0", "state-1")
_NOTE_START: Final = b"moved"
# Directly below the ids of guests, and of no other process.
SIGNER_UID: Final = FIRST_ID - 1
# linux/capability.h: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID.
_NEEDED: Final = 1 << 0 | 1 << 1 | 1 << 6 | 1 << 7
OWN_UID: Final = "own-uid"
SAME_UID: Final = "same-uid"


def signer_directory(key_path: Path) -> Path:
    """Return the directory of the signer that has the key of a path."""
    return key_path.with_name(f"{key_path.stem}.signer")


def signer_uid() -> int | None:
    """Return the uid of signers; None: that of this process.

    It is not root then, or in a container that has not the id or the capabilities.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    return SIGNER_UID if _may_change_ids() and _is_mapped(SIGNER_UID) else None


def _may_change_ids() -> bool:
    """Return whether this process may give files away and become another user."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        found = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
        return int(found, 16) & _NEEDED == _NEEDED
    except (OSError, StopIteration, IndexError, ValueError):
        return False


def _is_mapped(uid: int) -> bool:
    """Return whether this user namespace has the uid (a rootless container's may lack it)."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        ranges = [[int(word) for word in line.split()] for line in lines]
    except (OSError, ValueError):
        return False
    return any(first <= uid < first + count for first, _, count in ranges)


def prepare_place(key_path: Path, uid: int | None) -> Path:
    """Make the signer's directory and move an earlier key there; return the directory.

    Raises:
        CallerError: there are two keys, or a file is not what it should be.
        InfrastructureError: something cannot be written.
    """
    directory = signer_directory(key_path)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _require_closed(directory)
        _move(key_path, directory / KEY_NAME)
        for name in ("", KEY_NAME, *STATE_NAMES):
            _own(directory / name, uid)
    except OSError as error:
        raise InfrastructureError(
            f"cannot use {directory}: {error.strerror}", reason="keys"
        ) from error
    return directory


def _require_closed(directory: Path) -> None:
    status = directory.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid in {os.geteuid(), SIGNER_UID}
    if not is_own or status.st_mode & 0o077:
        raise CallerError(
            f"others may use {directory}, or it is not your own directory: chmod 700 it, or move it"
            " away",
            reason="keys",
        )


def _move(old: Path, new: Path) -> None:
    if _is_key(old):
        if new.exists():
            raise CallerError(
                f"{old} and {new} are both a key: move the one that signed the trail to {new}, and"
                " the other one away",
                reason="keys",
            )
        # It may have signed since that state: the trail says where it ends.
        for name in STATE_NAMES:
            new.with_name(name).unlink(missing_ok=True)
        sync_directory(new.parent)
        old.rename(new)
        sync_directory(new.parent)
        sync_directory(old.parent)
    # Also before the first start makes a key: an earlier version must not make another one.
    if not old.exists():
        text = (
            f"moved to {new.parent.name}/{KEY_NAME} by hpcc {__version__}: a separate process signs"
            " the trail.\nTo go back to an earlier version, stop this one and move that file here"
            " (docs/operate.md).\n"
        )
        write_whole(old, text.encode(), sync=Sync.NAME)


def _is_key(path: Path) -> bool:
    """Return whether a file has a key; False if there is none, or the note."""
    try:
        descriptor = open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # It may be the signer's, if an operator moved it back.
        owners = {os.geteuid(), SIGNER_UID}
        if not access_of(descriptor).is_regular or os.fstat(descriptor).st_uid not in owners:
            raise CallerError(f"{path} is not your own ordinary file: remove it", reason="keys")
        if os.read(descriptor, len(_NOTE_START)).startswith(_NOTE_START):
            return False
        require_private(path, descriptor)
        return True
    finally:
        os.close(descriptor)


def require_private(path: Path, descriptor: int) -> None:
    """Check that only its owner can read an open key.

    Raises:
        CallerError: others can.
    """
    if not access_of(descriptor).is_private:
        raise CallerError(
            f"others can read {path}: {privacy_remedy(path)}, or remove it for a new one",
            reason="keys",
        )


def _own(path: Path, uid: int | None) -> None:
    """Give a file to the signer's uid, or back to this process's."""
    wanted = os.geteuid() if uid is None else uid
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if status.st_uid != wanted:
        os.chown(path, wanted, os.getegid() if uid is None else uid, follow_symlinks=False)
