"""`hpcc debug-map`, and which checkout the current directory is in."""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.compilers.invocation.share import DEBUG_ROOT
from hpcc.core import CallerError, NotFoundError
from hpcc.core.reasons.private import PrivateReason
from hpcc.obs.text import one_line

if TYPE_CHECKING:
    from hpcc.cache.key.marker import Marker

_BARE: Final = re.compile(r"[A-Za-z0-9/._+~@-]+")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `debug-map`."""
    parser = subparsers.add_parser(
        "debug-map",
        help="print gdb and lldb commands that locate this checkout's sources",
        description=_debug_map.__doc__,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--gdb", action="store_true", help="print only the lines for gdb")
    which.add_argument("--lldb", action="store_true", help="print only the line for lldb")
    parser.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        default=".",
        help="a directory in the checkout (default: .)",
    )
    parser.set_defaults(handler=_debug_map)


def _debug_map(args: argparse.Namespace) -> int:
    """Print commands with which gdb and lldb find the sources of shared objects.

    A debugger that is started in the root of the checkout does not need them.
    """
    root = _root_of(args.directory)
    if not args.lldb:
        emit("\n".join(gdb_lines(root)))
    if not args.gdb:
        emit(lldb_line(root))
    return 0


def _root_of(directory: str) -> str:
    from hpcc.cache.key.marker import (
        search_marker,  # late: the daemon's package is not needed for --help
    )

    cwd = os.path.realpath(directory)
    found = search_marker(os.fsencode(cwd), home_directory())
    if found.marker is None:
        why = _refusal(found.refusal) or "there is no .hpcc there or above"
        raise NotFoundError(f"{directory} is not in a checkout that shares results: {why}")
    root = os.fsdecode(found.marker.root)
    if not root.isprintable():
        # A line end in a name would end a debugger's command and begin another: gdb has `shell`.
        raise CallerError(f"no debugger's command can hold the name of {one_line(root)}")
    return root


def checkout_marker() -> Marker:
    """Return the marker of the checkout around the current directory.

    Raises:
        NotFoundError: there is none that counts.
    """
    from hpcc.cache.key.marker import search_marker  # late, as above

    found = search_marker(os.fsencode(os.path.realpath(".")), home_directory())
    if found.marker is None:
        why = _refusal(found.refusal) or "there is no .hpcc here or above"
        raise NotFoundError(f"this is not a checkout that shares results: {why}")
    return found.marker


def _refusal(word: str) -> str:
    """Return why a marker does not count, and what to do; empty without a marker."""
    reason = PrivateReason.of_word(word)
    return word if reason is None else f"{reason.text}. {reason.remedy}"


def home_directory() -> bytes:
    """Return the directory at which the daemon's search for a marker ends."""
    return os.fsencode(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111 - as the daemon spells it


def gdb_lines(root: str) -> list[str]:
    """Return gdb's commands; objects of a farm hold names relative to the root."""
    return [f"set substitute-path {old} {_quoted(root)}" for old in (os.fsdecode(DEBUG_ROOT), ".")]


def lldb_line(root: str) -> str:
    """Return lldb's command for the same mapping."""
    to = _quoted(root)
    return f"settings set target.source-map {os.fsdecode(DEBUG_ROOT)} {to} . {to}"


def _quoted(path: str) -> str:
    if _BARE.fullmatch(path):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
