"""Tells whether somebody may change a file without a change of its stat.

The kernel stamps a file for each `write`. For a writable shared mapping it does so at the first
write to a page only. All later ones through that page leave no trace in the stat until the page is
written back, and tmpfs never writes back. So a stat proves nothing while such a mapping exists.

Rule: a file that is open for writing, or mapped so, is a file that changes. Once its last writer is
gone, the next one has to open it, and its first write is stamped.

The kernel grants a read lease only on a file without writers (fcntl(2), `F_SETLEASE`). It is taken
and given back at once; who opens the file for writing in between waits for these microseconds.

Not seen: writers of another user's file, unless this is root; on overlayfs a mapping whose
descriptor was closed; writers at other machines.
"""

from __future__ import annotations

import signal
import sys

from hpcc.cache.base.stamps import LOCAL_KINDS, OVERLAY_KIND, file_system_kind

if sys.platform == "linux":
    import fcntl


def has_writer(fd: int) -> bool:
    """Tell whether a file that is open here for reading is open for writing anywhere, or mapped so.

    False also means that the kernel does not tell.
    """
    if sys.platform != "linux":
        return False
    try:
        # Who opens the file meanwhile makes the kernel signal us: SIGIO would end the process,
        # SIGURG is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        # NFS and SMB also answer so where the server gave no delegation.
        kind = file_system_kind(fd)
        return kind in LOCAL_KINDS or kind == OVERLAY_KIND
    except OSError:
        return False  # another user's file, or a file system without leases
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
