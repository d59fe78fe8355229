"""What `hpcc doctor` says of the host below the guests, from trees of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hpcc.cli.doctor.check import DoctorCheck
from hpcc.cli.doctor.host import HOST_CHECKS, flaws, ksm, smt, swap

SMT = "sys/devices/system/cpu/smt/active"
KSM = "sys/kernel/mm/ksm/run"
FLAWS = "sys/devices/system/cpu/vulnerabilities"
MICROCODE = "sys/devices/system/cpu/cpu0/microcode/version"
HEADER = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
GOOD = {
    f"{FLAWS}/meltdown": "Not affected\n",
    f"{FLAWS}/mds": "Mitigation: Clear CPU buffers; SMT vulnerable\n",
    f"{FLAWS}/l1tf": "Mitigation: PTE Inversion; VMX: cache flushes, SMT vulnerable\n",
    f"{FLAWS}/itlb_multihit": "KVM: Mitigation: Split huge pages\n",
    f"{FLAWS}/spectre_v2": "Mitigation: Retpolines; IBPB: conditional; BHI: Not affected\n",
    MICROCODE: "0xd0003a5\n",
}


def looked_into(
    look: Callable[[Path], DoctorCheck], root: Path, files: Mapping[str, str]
) -> DoctorCheck:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return look(root)


@pytest.mark.parametrize(
    ("look", "files"),
    [
        (smt, {SMT: "0\n"}),
        (ksm, {KSM: "0\n"}),
        (ksm, {KSM: "2\n"}),
        (ksm, {"sys/kernel/mm/transparent_hugepage/enabled": "always\n"}),
        (swap, {"proc/swaps": HEADER}),
        (swap, {"proc/swaps": f"{HEADER}/dev/zram0 partition 8 0 100\n"}),
        (flaws, GOOD),
    ],
)
def test_a_host_that_is_right_is_ok(
    tmp_path: Path, look: Callable[[Path], DoctorCheck], files: Mapping[str, str]
) -> None:
    assert looked_into(look, tmp_path, files).state == "ok"


@pytest.mark.parametrize(
    ("look", "files", "detail", "remedy"),
    [
        (smt, {SMT: "1\n"}, "two threads", "nosmt"),
        (ksm, {KSM: "1\n"}, "merges", "echo 2 > /sys/kernel/mm/ksm/run"),
        (
            swap,
            {"proc/swaps": f"{HEADER}/dev/zram0 partition 8 0 5\n/dev/sda2 partition 8 0 -2\n"},
            "/dev/sda2",
            "swapoff -a",
        ),
        (
            flaws,
            {**GOOD, f"{FLAWS}/spec_rstack_overflow": "Vulnerable: Safe RET, no microcode\n"},
            "spec_rstack_overflow: Vulnerable: Safe RET, no microcode; microcode 0xd0003a5",
            "amd64-microcode",
        ),
        (flaws, {**GOOD, f"{FLAWS}/old_microcode": "Vulnerable\n"}, "old_microcode", "reboot"),
        (
            flaws,
            {**GOOD, f"{FLAWS}/spectre_v2": "Mitigation: IBRS; BHI: Vulnerable\n"},
            "BHI: Vulnerable",
            "update kernel",
        ),
        (flaws, {**GOOD, f"{FLAWS}/srbds": "Unknown: No mitigations\n"}, "srbds", "update kernel"),
        (
            flaws,
            {**GOOD, f"{FLAWS}/meltdown": "Vulnerable\n", "proc/cmdline": "ro mitigations=off x\n"},
            "meltdown: Vulnerable",
            "without mitigations=off",
        ),
    ],
)
def test_each_risk_has_its_reason_its_cost_and_its_remedy(
    tmp_path: Path,
    look: Callable[[Path], DoctorCheck],
    files: Mapping[str, str],
    detail: str,
    remedy: str,
) -> None:
    check = looked_into(look, tmp_path, files)
    assert check.state == "degraded"
    assert detail in check.detail
    assert remedy in check.remedy
    assert "zram" not in check.detail
    assert check.cost


@pytest.mark.parametrize("look", [smt, ksm, swap, flaws])
def test_what_cannot_be_read_does_not_count_as_good(
    tmp_path: Path, look: Callable[[Path], DoctorCheck]
) -> None:
    check = look(tmp_path)
    assert check.state == "degraded"
    assert check.detail.startswith("not known: /")
    assert check.remedy


def test_the_kernels_own_files_have_these_names() -> None:
    assert [f(Path("/")).name for f in (smt, ksm, swap, flaws)] == list(HOST_CHECKS)
    assert not swap(Path("/")).detail.startswith("not known")
