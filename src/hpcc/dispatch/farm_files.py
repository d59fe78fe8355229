"""The current farm and its last session, read from files of commands and dispatchers."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from hpcc.config.farm import Farm, engine_farm_or_none, load_farm_or_none
from hpcc.config.farm_session import FarmSession, load_farm_session_or_none
from hpcc.config.paths import Paths
from hpcc.config.private_file import write_private_file
from hpcc.config.settings import Settings
from hpcc.core import CallerError, InfrastructureError

_log: Final = logging.getLogger("hpcc.daemon.farm")


class FarmFiles:
    """Reads each file again when its stat has changed; see `RemoteClient`. Thread-safe."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self._paths, self._is_enabled = paths, settings.remote.is_enabled
        self.path = _farm_file(paths, settings)
        # Joining the parts of a path takes longer than a stat.
        self._session_path = os.fspath(paths.farm_session_file)
        self._farm_stat: tuple[int, ...] | None = None
        self._farm: Farm | None = None
        # One tuple, so that a thread reads or replaces stat and session together.
        self._session: tuple[tuple[int, ...], FarmSession | None] = ((), None)

    def farm(self) -> Farm | None:
        """See `RemoteClient.farm`."""
        if not self._is_enabled:
            return None
        try:
            status = os.stat(self.path)
            stat = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        except OSError:
            self._farm_stat = self._farm = None
            return None
        if stat != self._farm_stat:
            try:
                self._farm = load_farm_or_none(self.path)
            except CallerError as error:
                _log.warning("no farm is used: %s", error)
                self._farm = None
            self._farm_stat = stat
        return self._farm

    def session(self) -> FarmSession | None:
        """See `RemoteClient.session`."""
        farm = self.farm()
        if farm is None:
            return None
        stat, session = self._session
        try:
            status = os.stat(self._session_path)
            now = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        except OSError:
            return None
        if now != stat:
            session = load_farm_session_or_none(self._paths.farm_session_file)
            self._session = (now, session)
        return session if session is not None and session.is_of(farm) else None


def _farm_file(paths: Paths, settings: Settings) -> Path:
    """Return the path of the farm's file; an engine in hpcc.toml takes precedence over a farm."""
    engine = paths.farm_file.with_name("engine.json")
    try:
        farm = engine_farm_or_none(settings.remote)
        if farm is None:
            return paths.farm_file
        write_private_file(engine, farm.to_json().encode())
    except (CallerError, InfrastructureError) as error:
        # No fallback to the farm: the user chose which service may see the sources.
        _log.warning("no engine, all compiles are local: %s", error)
        engine.unlink(missing_ok=True)
    return engine
