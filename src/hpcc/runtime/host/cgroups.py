"""A VMM's cgroups: limits of memory, swap and processes, in version 2 or 1.

A worker of root makes them at the top, and any other worker below the cgroup that systemd delegated
to its unit. There it runs in a cgroup beside those of its VMMs (`DelegateSubgroup=`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.runtime.host.leftovers import remove_cgroup

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUP: Final = Path("/proc/self/cgroup")
PARENT_CGROUP: Final = "hpcc"
# Controllers that a VMM's cgroup needs.
CONTROLLERS: Final = frozenset({"memory", "pids"})


def has_cgroups() -> bool:
    """Return whether a process can be put into a cgroup v2 with limits.

    Below a cgroup that holds processes itself, as in a container, no controller can be enabled.
    """
    return _tree() is not None


def _tree() -> Path | None:
    """Return the directory of version 2 below which this process may make cgroups with limits."""
    own = _delegated()
    if own is not None:
        return own if _can_enable(own) else None
    is_top = not (CGROUPS / "cgroup.type").exists()
    name = "cgroup.controllers" if is_top else "cgroup.subtree_control"
    return CGROUPS if _has_all(CGROUPS / name) and os.access(CGROUPS, os.W_OK) else None


def _delegated() -> Path | None:
    """Return the cgroup around this process's own one, if this user may make others in it."""
    if os.geteuid() == 0:
        return None
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return None
    own = [CGROUPS / line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    is_ours = bool(own) and own[0] != CGROUPS and os.access(own[0].parent, os.W_OK)
    return own[0].parent if is_ours else None


def _can_enable(group: Path) -> bool:
    """Return whether controllers can be enabled for the children of a cgroup."""
    try:
        is_empty = not (group / "cgroup.procs").read_text().strip()
    except OSError:
        return False
    return is_empty and _has_all(group / "cgroup.controllers")


def _has_all(file: Path) -> bool:
    try:
        return set(file.read_text().split()) >= CONTROLLERS
    except OSError:
        return False


def counts_swap() -> bool:
    """Return whether a cgroup v2 below `hpcc` has a limit of swap. Makes `hpcc` itself. Blocks.

    A kernel without swap accounting has none, and the file of such a limit cannot be written.
    """
    parent = CGROUPS / PARENT_CGROUP
    try:
        parent.mkdir(exist_ok=True)
    except OSError:
        return False
    _enable_controllers(CGROUPS)
    return (parent / "memory.swap.max").exists()


def make_groups(name: str, *, memory_bytes: int, pids: int) -> list[Path]:
    """Make the cgroups of a VMM, below `hpcc`; [] where this process may not. Blocks.

    Nothing in them is swapped out, where the kernel counts swap.
    """
    tree = _tree()
    if tree is not None:
        groups = [tree / PARENT_CGROUP / name]
        limits = {"memory.max": memory_bytes, "memory.swap.max": 0, "pids.max": pids}
    else:
        groups = [CGROUPS / c / PARENT_CGROUP / name for c in sorted(CONTROLLERS)]
        if not all(g.parents[1].is_dir() and os.access(g.parents[1], os.W_OK) for g in groups):
            return []
        # Memory with swap, if it is counted, may be no more than memory.
        limits = {
            "memory.limit_in_bytes": memory_bytes,
            "memory.memsw.limit_in_bytes": memory_bytes,
            "memory.swappiness": 0,
            "pids.max": pids,
        }
    try:
        for group in groups:
            _make(group, limits, is_unified=tree is not None)
    except OSError:
        remove_groups(groups)
        return []
    return groups


def remove_groups(groups: list[Path]) -> None:
    """Remove the cgroups of a VMM that has ended. May block for a second."""
    for group in groups:
        remove_cgroup(group)


def _make(group: Path, limits: dict[str, int], *, is_unified: bool) -> None:
    group.mkdir(parents=True)
    if is_unified:
        for parent in (group.parents[1], group.parent):
            _enable_controllers(parent)
    for name, value in limits.items():
        file = group / name
        if file.exists():
            file.write_text(str(value))


def _enable_controllers(parent: Path) -> None:
    """Give the children of a cgroup v2 the files of their limits."""
    with suppress(OSError):  # another worker did it, or the limits are missing
        text = " ".join(f"+{c}" for c in sorted(CONTROLLERS))
        (parent / "cgroup.subtree_control").write_text(text)
