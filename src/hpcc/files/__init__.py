"""File operations for the services on Linux and Windows: locked, private, durable.

Two modules have the same functions, and this face chooses one. No other code may check the system
to open, lock or sync a file.
"""

import sys

from hpcc.files.access import FileAccess

if sys.platform == "win32":
    from hpcc.files.on_windows import (
        NONBLOCK,
        access_of,
        lock_now,
        make_own_directory,
        open_file,
        open_shared,
        own_uid,
        privacy_remedy,
        sync_directory,
        sync_file,
    )
else:
    from hpcc.files.on_posix import (
        NONBLOCK,
        access_of,
        lock_now,
        make_own_directory,
        open_file,
        open_shared,
        own_uid,
        privacy_remedy,
        sync_directory,
        sync_file,
    )

__all__ = [
    "NONBLOCK",
    "FileAccess",
    "access_of",
    "lock_now",
    "make_own_directory",
    "open_file",
    "open_shared",
    "own_uid",
    "privacy_remedy",
    "sync_directory",
    "sync_file",
]
