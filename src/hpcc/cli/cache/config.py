"""`hpcc config show | path`: the effective settings and the origin of each."""

from __future__ import annotations

import argparse
import os
from typing import Final

from hpcc.cli.base.terminal import emit
from hpcc.config.paths import DIR_VARIABLE, Paths
from hpcc.config.settings import setting_origins

_DIRECTORIES: Final = {
    "cache": "XDG_CACHE_HOME",
    "state": "XDG_STATE_HOME",
    "config": "XDG_CONFIG_HOME",
    "run": "XDG_RUNTIME_DIR",
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    config = subparsers.add_parser("config", help="show settings and the origin of each")
    actions = config.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = actions.add_parser(
        "show", help="print every value and its origin", description=_show.__doc__
    )
    show.set_defaults(handler=_show)
    path = actions.add_parser(
        "path", help="print the path of the config file", description=_path.__doc__
    )
    path.set_defaults(handler=_path)


def _show(_args: argparse.Namespace) -> int:
    """Show every setting and directory with its value and its origin: default, file or variable."""
    paths = Paths.from_env(os.environ)
    rows = [(name, value, origin) for name, value, origin in setting_origins(paths.config_file)]
    for name, variable in _DIRECTORIES.items():
        origin = "default"
        if os.environ.get(DIR_VARIABLE):
            origin = f"variable {DIR_VARIABLE}"
        elif os.environ.get(variable, "").startswith("/"):
            origin = f"variable {variable}"
        rows.append((f"directory {name}", str(getattr(paths, name)), origin))
    disabled = os.environ.get("HPCC_DISABLE")
    if disabled:
        rows.append(("HPCC_DISABLE", disabled, "variable HPCC_DISABLE"))
    width = max(len(name) for name, _, _ in rows)
    widest = max(len(value) for _, value, _ in rows)
    for name, value, origin in rows:
        emit(f"{name:<{width}}  {value:<{widest}}  {origin}")
    return 0


def _path(_args: argparse.Namespace) -> int:
    """Print the path of hpcc.toml. The file may be missing."""
    emit(Paths.from_env(os.environ).config_file)
    return 0
