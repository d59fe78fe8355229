"""The line of `hpcc doctor` about guests on Windows. It states that it has not run on Windows."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hpcc.config.settings import WorkerSettings
from hpcc.core import HpccError
from hpcc.runtime.containerd.client import Connect, Containerd, pipe_connector
from hpcc.runtime.registry.table import LINUX, WINDOWS, last_resort, row_or_none
from hpcc.runtime.windows.host import find_shim, shim_says
from hpcc.runtime.windows.spec import check_containerd, check_shim

_UNPROVED = "not yet run on Windows: `hpcc selftest windows` shows what holds on this host"


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One line without its name, with the fields of `hpcc.cli.doctor.check.DoctorCheck`."""

    state: Literal["ok", "degraded", "missing"]
    detail: str
    cost: str = ""
    remedy: str = ""


async def windows_guests(
    settings: WorkerSettings,
    *,
    is_windows: bool = os.name == "nt",
    program_files: str,
    connect: Callable[[str], Connect] = pipe_connector,
) -> DoctorFinding:
    """Check whether containerd and its shim are present for the chosen `worker.runtime`."""
    row = row_or_none(WINDOWS, settings.runtime)
    if not is_windows:
        if row is None or row_or_none(LINUX, row.name) is not None:
            return DoctorFinding("ok", "off: Hyper-V isolation is for Windows Server")
        return DoctorFinding(
            "missing", f'worker.runtime = "{row.name}" needs Windows Server',
            cost="no guests: every miss compiles locally", remedy='worker.runtime = "auto"',
        )  # fmt: skip
    row = row or last_resort(WINDOWS)
    label = row.labels[0] + (", on the host's own kernel" if row.is_container else "")
    try:
        version = await _version(connect(settings.containerd))
        check_containerd(version)
        shim = find_shim(program_files)
        number = check_shim(await shim_says(shim)) if shim is not None else ""
    except HpccError as error:
        return DoctorFinding(
            "missing", str(error), cost="no guests: every miss compiles locally",
            remedy="docs/windows.md, The host",
        )  # fmt: skip
    detail = f"containerd {version}, shim {shim or 'not found'} {number}".rstrip()
    return DoctorFinding(
        "degraded", f"{label}; {detail}", cost=_UNPROVED, remedy="hpcc selftest windows"
    )


async def _version(connect: Connect) -> str:
    client = Containerd(connect)
    try:
        return await client.version()
    finally:
        client.close()
