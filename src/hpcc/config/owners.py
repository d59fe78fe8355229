"""Refuses directories of hpcc that another user could fill or exchange.

Problem: root with `HPCC_DIR` below a user's directory, or with that user's HOME as `sudo -E` leaves
it, would take objects from a store, and settings from a file, that the user wrote.

Rule: each name on the way to a directory of hpcc belongs to root or to the user who runs it, links
included. What does not exist yet will be ours. In a user namespace, where root may have no number,
owners without a number count as root, but not the directory itself. `HPCC_TRUST_UID` names one
further user. It is for containers whose root works in a mounted home.

Windows has access lists in place of owners (docs/windows.md).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hpcc.config.paths import Paths
from hpcc.core import CallerError

TRUST_VARIABLE: Final = "HPCC_TRUST_UID"
_MAX_LINKS: Final = 40
_ALL_UIDS: Final = ["0", "0", "4294967295"]


def refuse_foreign_owner(paths: Paths, env: Mapping[str, str], *, uid: int | None = None) -> None:
    """Check who owns the directories of this user's hpcc, and its settings.

    Raises:
        CallerError: another user owns one of them, or a directory or link on the way (reason
            `foreign-owner`).
    """
    if sys.platform == "win32":
        return
    own = {0, os.geteuid() if uid is None else uid}
    text = env.get(TRUST_VARIABLE, "")
    if text.isascii() and text.isdecimal():
        own.add(int(text))
    unmapped = _unmapped_owner()
    for place in (paths.cache, paths.state, paths.config_file, paths.run):
        for path, status in _on_the_way(place):
            if status.st_uid in own or (status.st_uid == unmapped and path != str(place)):
                continue
            raise CallerError(
                f"{path} belongs to uid {status.st_uid}, who could change what hpcc takes from "
                f"{place}; point HPCC_DIR at a directory of yours, or set {TRUST_VARIABLE}="
                f"{status.st_uid}",
                reason="foreign-owner",
            )


def _on_the_way(place: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each existing directory and link that leads to a path, and the path."""
    at, links = "/", 0
    stack = list(place.parts[::-1])
    while stack:
        name = stack.pop()
        if name == "..":
            at = os.path.dirname(at)
            continue
        path = os.path.join(at, name)
        try:
            status = os.lstat(path)
        except OSError:
            at = path  # it does not exist yet, or opening it will fail
            continue
        yield path, status
        if not stat.S_ISLNK(status.st_mode):
            at = path
            continue
        links += 1
        if links > _MAX_LINKS:
            return
        stack += Path(os.readlink(path)).parts[::-1]


def _unmapped_owner() -> int | None:
    """Return the uid that stands for users without a number in this namespace; None at the top."""
    try:
        # One line: 0 0 4294967295.
        if Path("/proc/self/uid_map").read_text().split() == _ALL_UIDS:
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return None
