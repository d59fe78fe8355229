"""Files as the services need them, on Linux and on Windows: locked, private, durable.

The two modules have the same functions; this face chooses one. Nothing else may ask which system
it runs on to open, lock or sync a file.
"""

import sys

from hpcc.files.access import FileAccess

if sys.platform == "win32":
    from hpcc.files.on_windows import (
        NONBLOCK,
        access_of,
        lock_now,
        open_file,
        privacy_remedy,
        sync_directory,
        sync_file,
    )
else:
    from hpcc.files.on_posix import (
        NONBLOCK,
        access_of,
        lock_now,
        open_file,
        privacy_remedy,
        sync_directory,
        sync_file,
    )

__all__ = [
    "NONBLOCK",
    "FileAccess",
    "access_of",
    "lock_now",
    "open_file",
    "privacy_remedy",
    "sync_directory",
    "sync_file",
]
