"""The one table of backends. Settings, doctor, `hpcc up` and the worker read it.

A backend is one row here, one name in `hpcc.config.backends` and one folder of `hpcc.runtime`. A
row holds only names and labels. Its `load` imports the backend's folder, so that listing rows
imports no backend. "process" has two rows: on Linux it is runc, on Windows a Windows container.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from hpcc.config.backends import Backend
from hpcc.core import Isolation

if TYPE_CHECKING:
    from hpcc.runtime.vm.backend import LinuxBackend
    from hpcc.runtime.windows.host import WindowsBackend
    from hpcc.runtime.windows.opening import WindowsKind

# When "auto" chooses a backend: the first that works, else the last resort. A backend that is
# weaker than a virtual machine is always "never": it runs only where it was asked for.
Auto = Literal["if-it-works", "last-resort", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRow[Name: Backend, Loaded]:
    """One backend on one platform.

    `labels` are the isolation labels that its guests can have; which one is decided when it opens.
    `checks` names the lines of `hpcc doctor` that report on it.
    """

    name: Name
    labels: tuple[Isolation, ...]
    auto: Auto
    checks: tuple[str, ...]
    load: Callable[[], Loaded]

    @property
    def is_container(self) -> bool:
        """Whether its guests share the host's kernel."""
        return all(label.rank < Isolation.QEMU_TCG.rank for label in self.labels)


def _qemu() -> LinuxBackend:
    from hpcc.runtime.qemu.opening import BACKEND

    return BACKEND


def _firecracker() -> LinuxBackend:
    from hpcc.runtime.firecracker.opening import BACKEND

    return BACKEND


def _runc() -> LinuxBackend:
    from hpcc.runtime.runc.opening import BACKEND

    return BACKEND


def _hyperv() -> WindowsKind:
    from hpcc.runtime.windows.opening import HYPERV

    return HYPERV


def _windows_process() -> WindowsKind:
    from hpcc.runtime.windows.opening import PROCESS

    return PROCESS


# "auto" tries rows with "if-it-works" in this order.
LINUX: Final[tuple[BackendRow[Backend, LinuxBackend], ...]] = (
    BackendRow(
        name="qemu",
        labels=(Isolation.QEMU_KVM, Isolation.QEMU_TCG),
        auto="last-resort",
        checks=("qemu", "kvm"),
        load=_qemu,
    ),
    BackendRow(
        name="firecracker",
        labels=(Isolation.FIRECRACKER_KVM,),
        auto="if-it-works",
        checks=("firecracker",),
        load=_firecracker,
    ),
    BackendRow(
        name="process",
        labels=(Isolation.PROCESS_RUNC,),
        auto="never",
        checks=("containers",),
        load=_runc,
    ),
)
WINDOWS: Final[tuple[BackendRow[WindowsBackend, WindowsKind], ...]] = (
    BackendRow(
        name="hyperv",
        labels=(Isolation.HYPERV,),
        auto="last-resort",
        checks=("windows",),
        load=_hyperv,
    ),
    BackendRow(
        name="process",
        labels=(Isolation.PROCESS_WINDOWS,),
        auto="never",
        checks=("windows",),
        load=_windows_process,
    ),
)


def last_resort[Name: Backend, Loaded](
    rows: tuple[BackendRow[Name, Loaded], ...],
) -> BackendRow[Name, Loaded]:
    """Return the row that "auto" falls back to; each platform has exactly one."""
    (row,) = (row for row in rows if row.auto == "last-resort")
    return row


def row_or_none[Name: Backend, Loaded](
    rows: tuple[BackendRow[Name, Loaded], ...], name: str
) -> BackendRow[Name, Loaded] | None:
    """Return the row of one platform with this name; None for "auto" and other platforms' names."""
    return next((row for row in rows if row.name == name), None)


def is_linux_container(name: str) -> bool:
    """Return whether `worker.runtime = NAME` gives guests on this Linux host's own kernel."""
    row = row_or_none(LINUX, name)
    return row is not None and row.is_container


def container_labels() -> frozenset[Isolation]:
    """Return the labels of guests on a Linux host's own kernel."""
    return frozenset(label for row in LINUX if row.is_container for label in row.labels)


def check_names() -> tuple[str, ...]:
    """Return the lines of `hpcc doctor` about backends, each once, in the table's order."""
    return tuple(dict.fromkeys(name for row in (*LINUX, *WINDOWS) for name in row.checks))


def backend_of(isolation: Isolation) -> Backend | None:
    """Return the backend for Linux whose guests have this label; None if no backend has it."""
    return next((row.name for row in LINUX if isolation in row.labels), None)
