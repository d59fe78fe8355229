"""The daemon's named pipe on Windows: its name, and who may open it.

Sources: Win32 "Named Pipe Security and Access Rights", "SID Strings" and "Security Descriptor
String Format". The launcher's half is launcher/hpcc_win.c, `find_pipe`.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.core import CallerError
from hpcc.wire.address import fnv1a

# S-1, an authority, and up to 15 numbers of 32 bits.
_SID: Final = re.compile(r"S-1-(?:[0-9]{1,15}|0x[0-9A-Fa-f]{12})(?:-[0-9]{1,10}){1,15}")


def check_sid(sid: str) -> str:
    """Return the text if it is a SID.

    Raises:
        CallerError: it is not. It would go into a name or a security descriptor.
    """
    if not _SID.fullmatch(sid):
        raise CallerError(f"{sid[:80]!r} is not the SID of a user", reason="bad-sid")
    return sid


def daemon_pipe(sid: str, hpcc_dir: str = "") -> str:
    r"""Return the name of this user's pipe, as launcher and daemon compute it.

    Anyone can guess and take the name first, so each side checks who is at the other end.
    """
    text = check_sid(sid) + (f"\n{hpcc_dir}" if hpcc_dir else "")
    return rf"\\.\pipe\hpcc-{fnv1a(text.encode()):016x}"


def pipe_sddl(sid: str) -> str:
    """Return the security descriptor of the pipe.

    Owner: the user; the launcher checks it. Access: only the user. An administrator must take
    ownership first. Nobody has access from the network (`NU`), with any account.
    """
    user = check_sid(sid)
    return f"O:{user}D:P(D;;GA;;;NU)(A;;GA;;;{user})"
