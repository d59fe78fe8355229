"""`hpcc debug-map`, and the texts for reasons that keep a result in one checkout."""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.compilers.invocation.share import DEBUG_ROOT
from hpcc.core import CallerError, NotFoundError
from hpcc.obs.text import one_line

if TYPE_CHECKING:
    from hpcc.cache.key.marker import Marker

MARKER_REASONS: Final = {
    "marker-kind": "the marker is neither a file nor a directory; a link does not count",
    "marker-owner": "the marker belongs to somebody else",
    "marker-writable": "everybody may write the marker; chmod o-w .hpcc",
    "marker-unreadable": "the marker cannot be read",
    "marker-size": "the marker is too large",
    "marker-syntax": "the marker is not TOML",
    "marker-key": "the marker holds a key that it may not hold",
    "marker-version": "the marker is of a version that this hpcc does not know",
    "marker-value": "a value in the marker has another form than the cookbook says",
}
PRIVATE_REASONS: Final = {
    **MARKER_REASONS,
    "computed-include": "an #include of a macro, and a source that names a directory above",
    "compressed-debug": "compressed sections, which cannot be searched for paths",
    "directory-spelling": "the shell spells the directory through a link",
    "embeds-inode": "the object holds device and inode of a source",
    "embeds-path": "the object holds the path of the checkout or of the home directory",
    "environment": "a variable or the compiler's name holds the path of the checkout",
    "excluded": "left out by the marker",
    "fails-with-maps": "it compiles only without prefix maps",
    "flags": "flags that are not proved to give one object in every checkout",
    "input-changed": "a source changed meanwhile",
    "linked-directory": "a search directory is a link",
    "maps-refused": "the compiler does not take the prefix maps",
    "msvc": "clang-cl: results stay in their checkout",
    "neighbour": "reads a directory whose name begins like the root's",
    "object-format": "no object that can be searched for paths",
    "root": "the root is the home directory, holds system headers or has an odd name",
    "root-in-argument": "a flag that is not a path holds the path of the checkout",
    "root-in-source": "a source names the checkout",
    "system-directory": "-isystem leads over `..` or a link: compilers call such headers otherwise",
    "text": "a message or the depfile names the checkout in a way that cannot be rendered",
    "unproved-compiler": "a version of a compiler for which nothing is proved",
}
"""Texts for the counters `private.*`: why a result stays in the checkout that made it."""

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
        why = MARKER_REASONS.get(found.refusal, "there is no .hpcc there or above")
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
        why = MARKER_REASONS.get(found.refusal, "there is no .hpcc here or above")
        raise NotFoundError(f"this is not a checkout that shares results: {why}")
    return found.marker


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
