"""`hpcc debug-map`: where debuggers find the sources of this checkout."""

from __future__ import annotations

import argparse
import os
import re
from typing import Final

from hpcc.compilers.invocation.share import DEBUG_ROOT
from hpcc.core import NotFoundError
from hpcc.core.reasons.private import PrivateReason

_BARE: Final = re.compile(r"[A-Za-z0-9/._+~@-]+")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `debug-map`."""
    parser = subparsers.add_parser(
        "debug-map",
        help="what tells gdb and lldb where this checkout's sources are",
        description=_debug_map.__doc__,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--gdb", action="store_true", help="the lines for gdb alone")
    which.add_argument("--lldb", action="store_true", help="the line for lldb alone")
    parser.add_argument("directory", metavar="DIR", nargs="?", default=".", help="in the checkout")
    parser.set_defaults(handler=_debug_map)


def _debug_map(args: argparse.Namespace) -> int:
    """Print the commands by which gdb and lldb find the sources of shared objects.

    A debugger that is started in the root of the checkout needs none of them.
    """
    root = _root_of(args.directory)
    if not args.lldb:
        print("\n".join(gdb_lines(root)))
    if not args.gdb:
        print(lldb_line(root))
    return 0


def _root_of(directory: str) -> str:
    from hpcc.cache.key.marker import (
        search_marker,  # late: the daemon's package is not needed for --help
    )

    cwd = os.path.realpath(directory)
    found = search_marker(os.fsencode(cwd), home_directory())
    if found.marker is None:
        refusal = PrivateReason.of_word(found.refusal)
        why = refusal.text if refusal else "there is no .hpcc there or above"
        raise NotFoundError(f"{directory} is in no checkout that is shared: {why}")
    return os.fsdecode(found.marker.root)


def home_directory() -> bytes:
    """Return where the daemon's search for a marker ends."""
    return os.fsencode(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111 - as the daemon spells it


def gdb_lines(root: str) -> list[str]:
    """Return gdb's commands; objects of a farm hold names relative to the root."""
    return [f"set substitute-path {old} {_quoted(root)}" for old in (os.fsdecode(DEBUG_ROOT), ".")]


def lldb_line(root: str) -> str:
    to = _quoted(root)
    return f"settings set target.source-map {os.fsdecode(DEBUG_ROOT)} {to} . {to}"


def _quoted(path: str) -> str:
    if _BARE.fullmatch(path):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
