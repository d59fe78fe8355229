"""Reads what a guest says, in a process of its own with nothing to lose (docs/adr/0015-warden.md).

Started by `hpcc.runtime`; a worker never imports it.
"""

from hpcc.warden._sandbox import SandboxError
from hpcc.warden._session import serve
from hpcc.warden._zygote import harden, main, run

__all__ = ["SandboxError", "harden", "main", "run", "serve"]
