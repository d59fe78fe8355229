"""The lines of `hpcc doctor` about the host: what one guest could learn of another one.

A guest's kernel cannot defend the host or other guests. The host does, if SMT, KSM and swap are off
and its CPU's flaws are mitigated. Firecracker's guide for production hosts asks for the same
(`docs/prod-host-setup.md` there). What the kernel does not report counts as degraded, not as good.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from hpcc.cli.doctor.check import Check, DoctorCheck
from hpcc.config.paths import Paths

_SMT: Final = "sys/devices/system/cpu/smt/active"
_KSM: Final = "sys/kernel/mm/ksm/run"
_SWAPS: Final = "proc/swaps"
_FLAWS: Final = "sys/devices/system/cpu/vulnerabilities"
_MICROCODE: Final = "sys/devices/system/cpu/cpu0/microcode/version"
_COMMAND_LINE: Final = "proc/cmdline"
# A compressed block device in memory: nothing of it reaches a disk.
_IN_MEMORY: Final = "/dev/zram"
# The line about SMT reports this; a flaw's own mitigation is another part of its text.
_SMT_PART: Final = "smt vulnerable"


def smt(root: Path) -> DoctorCheck:
    """Check that no two guests run on one core at once."""
    name = "smt"
    cost = "two guests on one core: each may read the other's data through shared caches"
    text = _read(root / _SMT)
    if text == "0":
        return DoctorCheck(name=name, state="ok", detail="no core runs two threads at once")
    if text is None:
        return _unknown(name, _SMT, cost)
    return DoctorCheck(
        name=name, state="degraded", detail="each core runs two threads (SMT)", cost=cost,
        remedy="boot with nosmt, or `echo off > /sys/devices/system/cpu/smt/control`; not needed"
        " where all guests are one tenant's",
    )  # fmt: skip


def ksm(root: Path) -> DoctorCheck:
    """Check that the kernel does not merge equal pages of several guests."""
    text = _read(root / _KSM)
    if text is None and (root / "sys/kernel/mm").is_dir():
        return DoctorCheck(name="ksm", state="ok", detail="this kernel has no KSM")
    cost = "the time of a write tells a guest which pages other guests have"
    if text is None:
        return _unknown("ksm", _KSM, cost)
    if text != "1":
        return DoctorCheck(name="ksm", state="ok", detail="equal pages of guests are not merged")
    return DoctorCheck(
        name="ksm", state="degraded", detail="the kernel merges equal pages of guests", cost=cost,
        remedy="`echo 2 > /sys/kernel/mm/ksm/run`, and disable ksmtuned",
    )  # fmt: skip


def swap(root: Path) -> DoctorCheck:
    """Check that memory with tenants' sources is not written to a disk."""
    cost = "sources and objects in the memory of worker and guests may stay on a disk"
    text = _read(root / _SWAPS)
    if text is None:
        return _unknown("swap", _SWAPS, cost)
    places = [line.split()[0] for line in text.splitlines()[1:] if line.strip()]
    on_disk = [place for place in places if not place.startswith(_IN_MEMORY)]
    if not on_disk:
        where = f"only in memory ({', '.join(places)})" if places else "none"
        return DoctorCheck(name="swap", state="ok", detail=where)
    return DoctorCheck(
        name="swap", state="degraded", detail=", ".join(on_disk), cost=cost,
        remedy="`swapoff -a`, or swap that is encrypted with a new key at each boot",
    )  # fmt: skip


def flaws(root: Path) -> DoctorCheck:
    """Check what the kernel reports of the CPU's flaws, and name the microcode."""
    name, cost = "cpu", "code in a guest may read memory of the host or of other guests"
    try:
        files = sorted((root / _FLAWS).iterdir())
    except OSError:
        return _unknown(name, _FLAWS, cost)
    found = {f.name: text for f in files if _is_open(text := _read(f) or "not readable")}
    version = _read(root / _MICROCODE)
    microcode = f"microcode {version}" if version else "microcode not known"
    if not found:
        detail = f"{len(files)} known flaws, each mitigated or absent; {microcode}"
        return DoctorCheck(name=name, state="ok", detail=detail)
    told = "; ".join(f"{flaw}: {text}" for flaw, text in found.items())
    return DoctorCheck(
        name=name, state="degraded", detail=f"{told}; {microcode}", cost=cost,
        remedy=_remedy(found, _read(root / _COMMAND_LINE) or ""),
    )  # fmt: skip


def _is_open(text: str) -> bool:
    """Return whether a flaw's text reports a hole, or does not report.

    Examples: "Vulnerable: no microcode", "Mitigation: IBPB; BHI: Vulnerable", "Unknown: No
    mitigations".
    """
    parts = [p.strip().lower() for p in text.replace(",", ";").split(";")]
    holes = [p for p in parts if "vulnerable" in p and p != _SMT_PART]
    return bool(holes) or not text.startswith(("Not affected", "Mitigation", "KVM: Mitigation"))


def _remedy(found: Mapping[str, str], command_line: str) -> str:
    if "mitigations=off" in command_line.split():
        return "boot this host without mitigations=off"
    if "old_microcode" in found or any("microcode" in text.lower() for text in found.values()):
        return "install the CPU's microcode (intel-microcode or amd64-microcode) and reboot"
    return "update kernel and firmware; in a virtual machine, ask for a host that is mitigated"


def _unknown(name: str, file: str, cost: str) -> DoctorCheck:
    return DoctorCheck(
        name=name, state="degraded", detail=f"not known: /{file} cannot be read",
        cost=f"if it is wrong here: {cost}", remedy="look at it on the host itself",
    )  # fmt: skip


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _of_linux(name: str, look: Callable[[Path], DoctorCheck]) -> Check:
    async def check(_: Paths) -> DoctorCheck:
        if os.name == "nt":
            return DoctorCheck(name=name, state="ok", detail="checked on Linux only")
        return await asyncio.to_thread(look, Path("/"))

    return check


HOST_CHECKS: Final[Mapping[str, Check]] = {
    name: _of_linux(name, look)
    for name, look in (("smt", smt), ("ksm", ksm), ("swap", swap), ("cpu", flaws))
}
