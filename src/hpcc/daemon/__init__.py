"""The per-user daemon: decides each compile, keeps the private cache, talks to a farm.

Commands use `start`, `stop` and `query`; everything else is between the daemon's own modules.
"""

import sys

from hpcc.daemon._api import (
    MAX_CAPTURE_BYTES,
    CompileHandler,
    CompileRequest,
    Done,
    Exec,
    Finish,
    RemoteClient,
    Run,
    RunReport,
)
from hpcc.daemon._counters import COUNTERS_NAME, read_counters
from hpcc.daemon._fallbacks import read_fallbacks
from hpcc.daemon._handler import CacheHandler
from hpcc.daemon._lifecycle import LifecycleLimits

if sys.platform == "win32":
    # What rests on POSIX is not there (docs/windows.md); nothing on Windows asks for it.
    from hpcc.daemon._windows_client import (
        LAUNCHER_START_SECONDS,
        START_SECONDS,
        daemon_environment,
        query,
        start,
        stop,
    )
    from hpcc.daemon._windows_main import Parts, run_daemon
else:
    from hpcc.daemon._cache import STORE_NAME, open_cache
    from hpcc.daemon._door import socket_path
    from hpcc.daemon._engine import (
        Check,
        CheckKind,
        Engine,
        Outcome,
        Plan,
        open_engine,
        why_not_native,
    )
    from hpcc.daemon._front import FrontLimits
    from hpcc.daemon._host_toolchains import HostToolchain, ask_compiler
    from hpcc.daemon._inspect import EntryPart, describe_entry
    from hpcc.daemon._lifecycle_client import (
        LAUNCHER_START_SECONDS,
        START_SECONDS,
        query,
        start,
        stop,
    )
    from hpcc.daemon._main import Parts, run_daemon
    from hpcc.daemon._marker import MarkerSearch, search_marker
    from hpcc.daemon._outputs import OutputFile
    from hpcc.daemon._plan_bytes import encode_plan
    from hpcc.daemon._records_read import CompileRecord, read_records
    from hpcc.daemon._replay import Replays
    from hpcc.daemon._spawn import daemon_environment

__all__ = [
    "COUNTERS_NAME",
    "LAUNCHER_START_SECONDS",
    "MAX_CAPTURE_BYTES",
    "START_SECONDS",
    "STORE_NAME",
    "CacheHandler",
    "Check",
    "CheckKind",
    "CompileHandler",
    "CompileRecord",
    "CompileRequest",
    "Done",
    "Engine",
    "EntryPart",
    "Exec",
    "Finish",
    "FrontLimits",
    "HostToolchain",
    "LifecycleLimits",
    "MarkerSearch",
    "Outcome",
    "OutputFile",
    "Parts",
    "Plan",
    "RemoteClient",
    "Replays",
    "Run",
    "RunReport",
    "ask_compiler",
    "daemon_environment",
    "describe_entry",
    "encode_plan",
    "open_cache",
    "open_engine",
    "query",
    "read_counters",
    "read_fallbacks",
    "read_records",
    "run_daemon",
    "search_marker",
    "socket_path",
    "start",
    "stop",
    "why_not_native",
]
