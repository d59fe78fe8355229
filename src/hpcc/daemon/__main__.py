"""`python -m hpcc.daemon`: the daemon as it is shipped."""

from __future__ import annotations

import sys

from hpcc.daemon.main import run_daemon

if sys.platform == "win32":
    from hpcc.daemon.windows_process import product_parts
else:
    from hpcc.cache.base.api import RemoteClient
    from hpcc.cache.cache import open_cache
    from hpcc.cache.replay.handler import CacheHandler
    from hpcc.config.paths import Paths
    from hpcc.config.settings import Settings
    from hpcc.dispatch.remote import start_remote

    def product_parts(paths: Paths, settings: Settings) -> tuple[CacheHandler, RemoteClient | None]:
        """Build what is behind the front of a real daemon."""
        remote = start_remote(paths, settings) if settings.remote.is_enabled else None
        return open_cache(paths, settings, remote), remote


if __name__ == "__main__":
    sys.exit(run_daemon(parts=product_parts))
