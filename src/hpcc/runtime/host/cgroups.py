"""A VMM's cgroups: limits of memory, swap and processes, in version 2 or 1."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.runtime.host.leftovers import remove_cgroup

CGROUPS: Final = Path("/sys/fs/cgroup")
PARENT_CGROUP: Final = "hpcc"
# Controllers that a VMM's cgroup needs.
CONTROLLERS: Final = frozenset({"memory", "pids"})


def has_cgroups() -> bool:
    """Return whether a process can be put into a cgroup v2 with limits.

    Below a cgroup that holds processes itself, as in a container, no controller can be enabled.
    """
    is_top = not (CGROUPS / "cgroup.type").exists()
    name = "cgroup.controllers" if is_top else "cgroup.subtree_control"
    try:
        text = (CGROUPS / name).read_text()
    except OSError:
        return False
    return set(text.split()) >= CONTROLLERS and os.access(CGROUPS, os.W_OK)


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
    if has_cgroups():
        groups = [CGROUPS / PARENT_CGROUP / name]
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
            _make(group, limits)
    except OSError:
        remove_groups(groups)
        return []
    return groups


def remove_groups(groups: list[Path]) -> None:
    """Remove the cgroups of a VMM that has ended. May block for a second."""
    for group in groups:
        remove_cgroup(group)


def _make(group: Path, limits: dict[str, int]) -> None:
    group.mkdir(parents=True)
    if has_cgroups():
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
