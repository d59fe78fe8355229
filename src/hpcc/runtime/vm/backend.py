"""What a backend for Linux hands to the registry, and what it gets from a worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcc.ports import Clock, Runtime
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.vm.warm import WarmStart


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRequest:
    """What a worker's guests need, whichever backend runs them.

    `state_dir` is the worker's own directory for guests and for records of failed probes.
    `containerd` is the path of containerd's socket. With `warm`, backends that can restore guests
    from snapshots do so.
    """

    assets: GuestAssets
    accelerator: Literal["auto", "tcg"]
    state_dir: Path
    clock: Clock
    containerd: Path
    warm: WarmStart | None = None

    @property
    def guests(self) -> Path:
        """The directory for guests' working directories."""
        return self.state_dir / "guests"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxBackend:
    """One backend for Linux: its class, its configuration and how to get a proved runtime.

    `open` returns a runtime that works here. It raises InfrastructureError if the backend does not
    work here, and CallerError if the request contradicts the backend. `offer` is what "auto" calls
    for a backend with `auto="if-it-works"`: it returns None where `open` would raise, and records
    a failed probe, so that the next call returns None without a boot.
    """

    runtime: type[Runtime]
    config: type[object]
    open: Callable[[RuntimeRequest], Awaitable[Runtime]]
    offer: Callable[[RuntimeRequest], Awaitable[Runtime | None]] | None = None
