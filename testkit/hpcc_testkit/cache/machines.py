"""Machines of one team: each has its own state, checkout and settings; `RemotePlace`s are shared.

A machine is a directory: a separate `HPCC_DIR`, and a clone of the project at another path. Its
compiler is this machine's, as all machines of a team have the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.remote_cache import RemoteCacheSettings
from hpcc.config.settings import CacheSettings, RemoteSettings, Settings
from hpcc.core import Sharing
from hpcc.dispatch.remote import DispatcherClient, start_remote
from hpcc.identity.cache_keys import SigningKey, make_signing_key
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, run_bare

_LONG_AGO: Final = 3600
# Far above what a test takes, so that no machine that is busy makes it fail.
_PATIENCE_SECONDS: Final = 60.0
# Without outlines, so that tests of entries count objects and requests of entries.
_DEFAULTS: Final = {"timeout_seconds": _PATIENCE_SECONDS, "outlines": False}


@dataclass(slots=True)
class TeamMachine:
    """One person's machine, or CI's. `remote` are fields of `[cache.remote]`.

    `farm_json` is the content of farm.json if the person has a farm, and `sharing` what the person
    accepts there; set them before the first use.
    """

    directory: Path
    remote: dict[str, Any]
    checkout: str = "project"
    farm_json: str = ""
    sharing: Sharing = "agreed"
    _cache: Cache | None = field(default=None, repr=False)
    _dispatcher: DispatcherClient | None = field(default=None, repr=False)

    @property
    def root(self) -> Path:
        return self.directory / self.checkout

    @property
    def paths(self) -> Paths:
        return Paths.from_env({"HPCC_DIR": str(self.directory / "hpcc")})

    @property
    def cache(self) -> Cache:
        """The daemon's cache, which the first use opens."""
        if self._cache is None:
            remote = RemoteCacheSettings(**{**_DEFAULTS, **self.remote})
            settings = Settings(
                cache=CacheSettings(remote=remote),
                remote=RemoteSettings(timeout_seconds=2 * _PATIENCE_SECONDS, sharing=self.sharing),
            )
            if self.farm_json:
                self.paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
                self.paths.farm_file.write_text(self.farm_json)
                self._dispatcher = start_remote(self.paths, settings)
            self._cache = open_cache(self.paths, settings, self._dispatcher)
        return self._cache

    def restart(self) -> None:
        """End the daemon; the next use starts another one."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None
        if self._dispatcher is not None:
            self._dispatcher.close()
            self._dispatcher = None

    def clone(self, files: Mapping[str, str], marker: str = "") -> None:
        """Write a checkout with a marker, older than any compile."""
        for name, text in {**files, ".hpcc": marker}.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.age()

    def age(self) -> None:
        """Make all files older than any compile."""
        old = time.time() - _LONG_AGO
        for path in self.root.rglob("*"):
            os.utime(path, (old, old))

    def compile(self, *argv: str) -> Compiled:
        return FakeLauncher(handler=self.cache, cwd=self.root).compile(*argv)

    def bare(self, *argv: str) -> tuple[int, bytes, bytes]:
        """Compile without hpcc."""
        return run_bare(argv, cwd=self.root)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def count(self, name: str) -> int:
        """Return one counter of `hpcc stats`."""
        return self.cache.counters().get(name, 0)

    def counted(self, prefix: str) -> dict[str, int]:
        """Return the counters that begin so, without the zeros."""
        counts = self.cache.counters()
        for gauge in ("pending", "daemon-done", "daemon-lost"):
            counts.pop(f"remote-cache.{gauge}", None)
        return {k.removeprefix(prefix): v for k, v in counts.items() if k.startswith(prefix) and v}

    def flush(self) -> None:
        """Wait until nothing waits to be uploaded."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.count("remote-cache.pending"):
            assert time.monotonic() < deadline, self.counted("remote-cache.")
            time.sleep(0.01)


def signing_key(path: Path, *, days: int = 30, now: float | None = None) -> SigningKey:
    """Make a signing key in a new file."""
    return make_signing_key(path, days=days, now=time.time() if now is None else now)


def writer(key_file: Path, **remote: object) -> dict[str, Any]:
    """Return the fields of a machine that writes."""
    return {"mode": "write", "signing_key_file": str(key_file), **remote}


def run_all(machine: TeamMachine, commands: Sequence[Sequence[str]]) -> list[str]:
    """Run compiles one after the other; return how each was answered."""
    return [machine.compile(*command).answer for command in commands]
