"""The file that names the key of a trail's writer until the first seal does.

It is a signed head of no records: it proves that its maker has the key. Somebody who writes the
disk can replace it, and must then sign every record anew with another key. That is found by
anchors, as for a whole trail that was written anew.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError
from hpcc.audit.base.heads import check_head, head_of_text, head_text, signed_head
from hpcc.audit.base.segments import Seal, open_trail_file
from hpcc.audit.base.trail_signer import TrailSigner
from hpcc.files.whole import Sync, write_whole

_NAME: Final = "signer"
_MAX_BYTES: Final = 4096


def name_signer(directory: Path, signer: TrailSigner, now: float) -> None:
    """Write the file, unless it names this key.

    Raises:
        OSError: it is not durable.
    """
    known = None
    with suppress(AuditDamagedError):
        known = _key_or_none(directory)
    if known != signer.public_key:
        data = head_text(signed_head(signer, 0, GENESIS, now))
        write_whole(directory / _NAME, data, sync=Sync.NAME)


def _key_or_none(directory: Path) -> bytes | None:
    path = directory / _NAME
    try:
        with open_trail_file(path) as file:
            head = head_of_text(file.read(_MAX_BYTES))
        check_head(head)
    except FileNotFoundError:
        return None
    except AuditDamagedError as error:
        raise AuditDamagedError(f"{path}: {error}") from error
    return head.key


def writers_key(directory: Path, sealed: list[Seal]) -> bytes:
    """Return the raw public key of a trail's writer, empty if no seal and no file names it.

    Raises:
        AuditDamagedError: the file is not a signed head.
    """
    if sealed:
        return sealed[-1].signed.key
    return _key_or_none(directory) or b""


def has_signer(directory: Path) -> bool:
    """Return whether the file exists. It is made when each record that no seal covers is signed."""
    return (directory / _NAME).exists()
