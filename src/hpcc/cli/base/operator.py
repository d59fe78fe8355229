"""Who runs a command."""

from __future__ import annotations

import getpass
import os
import sys


def operator_name() -> str:
    """Return who runs this command on this machine. It is for people, and proves nothing."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in many containers
        return "" if sys.platform == "win32" else f"uid-{os.getuid()}"
