"""Windows' own calls: named pipes, who is at their other end, services. Not yet run on Windows.

All of it goes through `Library`, a seam of four calls, so that it runs on Linux too: tests put a
program under Wine behind it.
"""

from hpcc.windows._command_line import command_line
from hpcc.windows._files import (
    FileLook,
    WindowsLock,
    directory_id,
    look_at,
    prepare_system_directory,
)
from hpcc.windows._library import Answer, Library, WindowsError, load_library, narrowed
from hpcc.windows._open_files import (
    CREATE_NEW,
    OPEN_ALWAYS,
    OPEN_EXISTING,
    LinkRefusedError,
    is_own_file,
    is_private_file,
    lock_handle,
    open_handle,
)
from hpcc.windows._pipes import PipeConnection, PipeListener, dial_pipe
from hpcc.windows._processes import ServerProcess
from hpcc.windows._services import ServiceSpec, install_service, remove_service, start_service
from hpcc.windows._users import is_elevated, is_raised, own_sid

__all__ = [
    "CREATE_NEW",
    "OPEN_ALWAYS",
    "OPEN_EXISTING",
    "Answer",
    "FileLook",
    "Library",
    "LinkRefusedError",
    "PipeConnection",
    "PipeListener",
    "ServerProcess",
    "ServiceSpec",
    "WindowsError",
    "WindowsLock",
    "command_line",
    "dial_pipe",
    "directory_id",
    "install_service",
    "is_elevated",
    "is_own_file",
    "is_private_file",
    "is_raised",
    "load_library",
    "lock_handle",
    "look_at",
    "narrowed",
    "open_handle",
    "own_sid",
    "prepare_system_directory",
    "remove_service",
    "start_service",
]
