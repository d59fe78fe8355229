"""Where hpcc stores files: the XDG base directories, or everything under `HPCC_DIR`.

On Windows it is the user's profile: `hpcc` in %LOCALAPPDATA%, and in %APPDATA% for hpcc.toml
(Microsoft, "Known folders"). Not yet run on Windows.

The launcher finds the daemon's socket by the same rules (launcher/hpcc.c, `socket_path`).
Source of the defaults: XDG Base Directory Specification 0.8.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from hpcc.core import CallerError, WindowsPath, parse_windows_path

DIR_VARIABLE: Final = "HPCC_DIR"
# In the directory of farm.json.
FARM_SESSION_NAME: Final = "farm-session.json"
# Packs of builds, in the cache's directory. `hpcc clean` deletes them without the packages that
# read them.
PACKS_NAME: Final = "packs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The directories of one user's hpcc. Reading a path creates nothing.

    `cache`: may be deleted at any time. `state`: keys, audit, files of `hpcc up`.
    `config`: hpcc.toml. `run`: sockets; mode 0700, removed by a reboot.
    """

    cache: Path
    state: Path
    config: Path
    run: Path

    @classmethod
    def from_env(
        cls, env: Mapping[str, str], *, uid: int | None = None, is_windows: bool = os.name == "nt"
    ) -> Self:
        """Return the four directories for an environment.

        Raises:
            CallerError: `HPCC_DIR` is set and not absolute (on Windows: not on a drive), or there
                is no home directory.
        """
        if is_windows:
            return cls(**_of_profile(env))
        root = env.get(DIR_VARIABLE, "")
        if root:
            base = Path(root)
            if not base.is_absolute():
                raise CallerError(f"{DIR_VARIABLE} must be an absolute path, not {root!r}")
            return cls(
                cache=base / "cache", state=base / "state", config=base / "config", run=base / "run"
            )
        home = env.get("HOME", "")
        if not home.startswith("/"):
            raise CallerError(f"no home directory: set HOME or {DIR_VARIABLE}")
        uid = os.getuid() if uid is None else uid
        runtime = env.get("XDG_RUNTIME_DIR", "")
        return cls(
            cache=_xdg(env, "XDG_CACHE_HOME", f"{home}/.cache"),
            state=_xdg(env, "XDG_STATE_HOME", f"{home}/.local/state"),
            config=_xdg(env, "XDG_CONFIG_HOME", f"{home}/.config"),
            run=Path(runtime, "hpcc") if runtime.startswith("/") else Path(f"/tmp/hpcc-{uid}"),  # noqa: S108 - created 0700 and its owner checked before use
        )

    @property
    def config_file(self) -> Path:
        return self.config / "hpcc.toml"

    @property
    def farm_file(self) -> Path:
        """How to reach the farm: written by `hpcc up` or `hpcc login`, removed when they end."""
        return self.state / "farm.json"

    @property
    def farm_session_file(self) -> Path:
        """The farm's answer to the last login: its policy, and the image's compilers."""
        return self.farm_file.with_name(FARM_SESSION_NAME)

    @property
    def login_file(self) -> Path:
        """The user who is logged in to a farm, with their tokens."""
        return self.state / "login.json"

    @property
    def cache_trust_file(self) -> Path:
        """The keys of a remote cache that the user confirmed for a checkout, or revoked."""
        return self.state / "cache-trust.json"

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def guest_assets(self) -> Path:
        """Kernel, initramfs and agent drive, named by content."""
        return self.cache / "guest"

    @property
    def audit(self) -> Path:
        return self.state / "audit"

    @property
    def keys(self) -> Path:
        return self.state / "keys"


def _of_profile(env: Mapping[str, str]) -> dict[str, Path]:
    root = env.get(DIR_VARIABLE, "")
    if root:
        base = parse_windows_path(root)
        return {name: _below(base, name) for name in ("cache", "state", "config", "run")}
    local = _drive_path(env, "LOCALAPPDATA", "Local")
    if local is None:
        raise CallerError(f"no profile on a drive: set LOCALAPPDATA or {DIR_VARIABLE}")
    # A roaming profile may be on a server, where hpcc stores nothing but its configuration.
    roaming = _drive_path(env, "APPDATA", "Roaming") or local
    found = {name: _below(local, "hpcc", name) for name in ("cache", "state", "run")}
    return found | {"config": _below(roaming, "hpcc")}


def _drive_path(env: Mapping[str, str], name: str, default: str) -> WindowsPath | None:
    profile = env.get("USERPROFILE", "")
    for text in (env.get(name, ""), f"{profile}\\AppData\\{default}" if profile else ""):
        with suppress(CallerError):
            return parse_windows_path(text)
    return None


def _below(base: WindowsPath, *names: str) -> Path:
    return Path(str(WindowsPath(base.drive, (*base.components, *names))))


def _xdg(env: Mapping[str, str], name: str, default: str) -> Path:
    value = env.get(name, "")
    # The specification says to ignore relative values.
    return Path(value if value.startswith("/") else default, "hpcc")
