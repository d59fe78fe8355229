"""The daemon as commands use it: start, stop and query, over a Unix socket or a named pipe."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from hpcc.daemon.windows_client import (
        LAUNCHER_START_SECONDS,
        START_SECONDS,
        daemon_environment,
        query,
        start,
        stop,
    )
else:
    from hpcc.daemon.lifecycle_client import (
        LAUNCHER_START_SECONDS,
        START_SECONDS,
        query,
        start,
        stop,
    )
    from hpcc.daemon.spawn import daemon_environment

__all__ = [
    "LAUNCHER_START_SECONDS",
    "START_SECONDS",
    "daemon_environment",
    "query",
    "start",
    "stop",
]
