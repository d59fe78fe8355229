"""Reads what a guest says, in a process of its own with nothing to lose (docs/adr/0015-warden.md).

Started by `hpcc.runtime`; a worker never imports it. On Windows there is no zygote
(docs/adr/0038-warden-on-windows.md).
"""

import sys

from hpcc.warden._harden import harden
from hpcc.warden._session import serve
from hpcc.warden._windows import main_on_windows

if sys.platform != "win32":
    from hpcc.warden._sandbox import SandboxError
    from hpcc.warden._zygote import main, run

__all__ = ["SandboxError", "harden", "main", "main_on_windows", "run", "serve"]
