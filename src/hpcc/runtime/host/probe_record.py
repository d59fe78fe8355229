"""Remembers that a probe guest failed, so that not every start of a worker waits for it again.

A record holds until kernel, VMM, CPU or user change, or the machine reboots.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
from pathlib import Path
from typing import Final

from hpcc.files.whole import Sync, write_whole
from hpcc.ports import Probe
from hpcc.runtime.host.tools import key_of

_MAX_REASON_CHARS: Final = 2000


async def machine_key(version: str) -> str:
    """Return a key for what a failed probe depends on; `version` names the VMM's programs."""
    boot_id, cpuinfo = await asyncio.to_thread(
        lambda: (
            Path("/proc/sys/kernel/random/boot_id").read_text(),
            Path("/proc/cpuinfo").read_text(),
        )
    )
    return key_of([platform.release(), version, cpu_model(cpuinfo), boot_id, str(os.geteuid())])


def cpu_model(cpuinfo: str) -> str:
    """Return the first CPU's model name in the text of /proc/cpuinfo; "unknown" without one."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"


def recall(path: Path, key: str) -> str:
    """Return why the probe failed under this key; "" if no such failure is recorded."""
    try:
        record = json.loads(path.read_text())
        return str(record["reason"]) if record["key"] == key else ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def remember(path: Path, key: str, probe: Probe) -> None:
    """Record a failed probe, in place of any earlier record.

    Raises:
        OSError: the file cannot be written.
    """
    reason = " ".join([probe.summary, *probe.details])[:_MAX_REASON_CHARS]
    data = json.dumps({"key": key, "reason": reason}).encode()
    write_whole(path, data, sync=Sync.NONE, mode=0o666, makes_parent=True)
