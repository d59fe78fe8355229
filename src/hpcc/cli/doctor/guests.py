"""The lines of `hpcc doctor` about guests: wardens, backends and what guests are made from."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcc.cli.doctor.check import Check, DoctorCheck
from hpcc.cli.doctor.common import windows_check
from hpcc.cli.doctor.host import HOST_CHECKS
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import HpccError, InfrastructureError
from hpcc.runtime.registry.table import check_names, is_linux_container


async def _warden(_: Paths) -> DoctorCheck:
    from hpcc.runtime.channel.warden import Zygote, warden_trouble
    from hpcc.runtime.channel.warden_launch import warden_label

    zygote = Zygote()
    try:
        trouble = await asyncio.to_thread(warden_trouble, zygote)
    finally:
        zygote.close()
    if trouble:
        return DoctorCheck(
            name="warden", state="missing", detail=f"guests' output cannot be read: {trouble}",
            cost="no guests: every miss compiles locally",
            remedy="a Linux kernel with seccomp filters, on x86-64 or arm64",
        )  # fmt: skip
    label = warden_label()
    if label == "own-uid":
        detail = "started one: a separate process with a separate uid reads a guest's output"
        return DoctorCheck(name="warden", state="ok", detail=detail)
    return DoctorCheck(
        name="warden", state="degraded", detail=f"started one; rows say warden={label}",
        cost="wardens share a uid: only seccomp confines a compromised one",
        remedy="run `hpcc up` with sudo where that matters",
    )  # fmt: skip


async def _qemu(paths: Paths) -> DoctorCheck:
    from hpcc.runtime.host.tools import run_tool
    from hpcc.runtime.qemu.backend import PROGRAM as QEMU_PROGRAM
    from hpcc.runtime.qemu.jail import find_jail

    if shutil.which(QEMU_PROGRAM) is None and _uses_containers(paths):
        return DoctorCheck(
            name="qemu", state="degraded", detail=f"{QEMU_PROGRAM} is not installed",
            cost="no virtual machines here, only containers",
            remedy="apt-get install qemu-system-x86",
        )  # fmt: skip
    if shutil.which(QEMU_PROGRAM) is None:
        return DoctorCheck(
            name="qemu", state="missing", detail=f"{QEMU_PROGRAM} is not installed",
            cost="no guests: every miss compiles locally", remedy="apt-get install qemu-system-x86",
        )  # fmt: skip
    version = (await run_tool(QEMU_PROGRAM, "--version")).splitlines()[0]
    try:
        await find_jail(QEMU_PROGRAM, paths.state / "runtime" / "guests")
    except InfrastructureError as error:
        return DoctorCheck(
            name="qemu", state="degraded", detail=f"{version}, without a jail: {error}",
            cost="a VMM that a guest took over has the host's network and sees its files",
            remedy="run `hpcc up` with sudo, or allow user namespaces to users",
        )  # fmt: skip
    return DoctorCheck(name="qemu", state="ok", detail=f"{version}; it runs in a jail")


async def _kvm(paths: Paths) -> DoctorCheck:
    from hpcc.runtime.qemu.backend import PROGRAM as QEMU_PROGRAM
    from hpcc.runtime.qemu.opening import kvm_state

    cost = "guests are emulated (qemu/tcg): the same isolation, compiles 8 to 20 times slower"
    if shutil.which(QEMU_PROGRAM) is None:
        return DoctorCheck(name="kvm", state="degraded", detail="not known without QEMU", cost=cost)
    state = await kvm_state(paths.state / "runtime")
    if not state.reason:
        detail = "/dev/kvm exists, but may not work: `hpcc up` tests it with a probe guest"
        return DoctorCheck(name="kvm", state="ok", detail=detail)
    remedy = (
        "remembered until the next reboot; give the VMM's user access to /dev/kvm (group kvm)"
        if state.was_probed
        else "use a machine with hardware virtualisation, or enable nesting on its host"
    )
    return DoctorCheck(name="kvm", state="degraded", detail=state.reason, cost=cost, remedy=remedy)


async def _firecracker(paths: Paths) -> DoctorCheck:
    from hpcc.runtime.firecracker.opening import firecracker_state

    state = await firecracker_state(paths.state / "runtime")
    found = ""
    if state.tools is not None:
        found = (
            f"{state.tools.version}, {state.tools.firecracker} {state.tools.firecracker_digest},"
            f" {state.tools.jailer} {state.tools.jailer_digest}"
        )
    if not state.reason:
        return DoctorCheck(
            name="firecracker", state="ok", detail=f"{found}; `hpcc up` boots a probe guest in it"
        )
    problem, _, remedy = state.reason.partition("; ")
    if state.was_probed:
        problem, remedy = state.reason, "remembered until the next reboot, or another release"
    return DoctorCheck(
        name="firecracker", state="degraded", detail=": ".join(filter(None, [found, problem])),
        cost="guests run under QEMU: its jail is hpcc's own, and more VMM code is in it",
        remedy=remedy,
    )  # fmt: skip


async def _warm_start(paths: Paths) -> DoctorCheck:
    """Check whether guests can be restored: always with Firecracker, with QEMU from 8.2 on."""
    from hpcc.runtime.firecracker.opening import firecracker_state
    from hpcc.runtime.qemu.backend import PROGRAM as QEMU_PROGRAM
    from hpcc.runtime.qemu.backend import why_no_snapshots
    from hpcc.runtime.vm.warm import snapshot_bytes

    name, cost = "warm start", "every guest boots"
    settings = load_settings(paths.config_file).worker
    if is_linux_container(settings.runtime):
        return DoctorCheck(name=name, state="ok", detail="containers do not need it")
    if not settings.warm_start:
        return DoctorCheck(
            name=name, state="degraded", detail="switched off", cost=cost,
            remedy="worker.warm_start = true",
        )  # fmt: skip
    state_dir = paths.state / "runtime"
    kept = await asyncio.to_thread(snapshot_bytes, state_dir)
    detail = f"guests are restored from snapshots; {kept / 1e6:.0f} MB of them are kept"
    no_firecracker = (await firecracker_state(state_dir)).reason
    reason = await why_no_snapshots(QEMU_PROGRAM)
    if reason and (no_firecracker or settings.runtime == "qemu"):
        return DoctorCheck(
            name=name, state="degraded", detail=reason, cost=cost,
            remedy="a distribution with QEMU 8.2 or newer, or Firecracker",
        )  # fmt: skip
    return DoctorCheck(name=name, state="ok", detail=detail)


def _uses_containers(paths: Paths) -> bool:
    return is_linux_container(load_settings(paths.config_file).worker.runtime)


async def _containers(paths: Paths) -> DoctorCheck:
    from hpcc.runtime.runc.tools import RuncConfig, find_runc

    weaker = "process/runc: a compile uses this machine's kernel, not a guest's"
    if not _uses_containers(paths):
        return DoctorCheck(
            name="containers", state="ok", detail="off: used only if worker.runtime selects them"
        )
    socket = Path(load_settings(paths.config_file).worker.containerd)
    config = RuncConfig(directory=paths.state / "runtime/guests", socket=socket)
    try:
        tools = await find_runc(config)
    except HpccError as error:
        problem, _, remedy = str(error).partition("; ")
        return DoctorCheck(
            name="containers", state="missing", detail=problem,
            cost='no guests: worker.runtime = "process" has no substitute',
            remedy=remedy.removeprefix("try: ") or "see docs/operate.md",
        )  # fmt: skip
    detail = f"{tools.version}, {tools.runc} {tools.runc_digest}; {weaker}"
    return DoctorCheck(name="containers", state="ok", detail=detail)


async def _bundle(paths: Paths, digest: str) -> DoctorCheck:
    from hpcc.runtime.assets.bundle import pinned_assets

    try:
        assets = await asyncio.to_thread(pinned_assets, paths.guest_assets, digest)
    except HpccError as error:
        return DoctorCheck(
            name="kernel", state="missing", detail=str(error),
            cost="no guests: worker.guest_bundle has no substitute",
            remedy=f"hpcc assets fetch FILE --digest {digest}",
        )  # fmt: skip
    return DoctorCheck(
        name="kernel", state="ok", detail=f"bundle {digest}, kernel {assets.vmlinux_digest}"
    )


async def _kernel(paths: Paths) -> DoctorCheck:
    from hpcc.runtime.assets.kernel import distribution_id, kernel_package_name, packages_for
    from hpcc.runtime.host.tools import run_tool

    if digest := load_settings(paths.config_file).worker.guest_bundle:
        return await _bundle(paths, digest)
    cost = "no guests: every miss compiles locally"
    prepared = sorted(p.name for p in paths.guest_assets.glob("kernel-*"))
    if prepared:
        return DoctorCheck(name="kernel", state="ok", detail=f"prepared: {prepared[-1]}")
    try:
        release = await asyncio.to_thread(Path("/etc/os-release").read_text)
        architecture = (await run_tool("dpkg", "--print-architecture")).strip()
        packages = packages_for(distribution_id(release), architecture)
        name = await kernel_package_name(packages)
    except (HpccError, OSError) as error:
        return DoctorCheck(
            name="kernel", state="missing", detail=str(error), cost=cost, remedy="apt-get update"
        )
    return DoctorCheck(
        name="kernel", state="ok", detail=f"{name} (fetched by `hpcc up`, not installed)"
    )


async def _init_compiler(_: Paths) -> DoctorCheck:
    from hpcc.runtime.assets.assets import find_static_compiler

    compiler = find_static_compiler()
    remedy = "apt-get install musl-tools"
    if compiler is None:
        return DoctorCheck(
            name="init", state="missing", detail="no C compiler for the guest's init",
            cost="no guests can be prepared", remedy=remedy,
        )  # fmt: skip
    return DoctorCheck(name="init", state="ok", detail=f"{compiler} builds the guest's init")


async def _erofs(_: Paths) -> DoctorCheck:
    return _tool(
        "erofs", "mkfs.erofs", "erofs-utils", "no images and no guests: every miss compiles locally"
    )


async def _mmdebstrap(_: Paths) -> DoctorCheck:
    check = _tool(
        "mmdebstrap", "mmdebstrap", "mmdebstrap",
        "`hpcc image build-debian` cannot run; pull an image from a registry instead",
    )  # fmt: skip
    if check.state == "ok":
        return check
    return DoctorCheck(
        name=check.name, state="degraded", detail=check.detail, cost=check.cost, remedy=check.remedy
    )


async def _confine(_: Paths) -> DoctorCheck:
    absent = [t for t in ("setpriv", "prlimit") if shutil.which(t) is None]
    if absent:
        return DoctorCheck(
            name="confine", state="missing", detail=f"{' and '.join(absent)} missing",
            cost="VMMs cannot be confined, so no VMM is started",
            remedy="apt-get install util-linux",
        )  # fmt: skip
    return DoctorCheck(name="confine", state="ok", detail="setpriv, prlimit")


def _tool(name: str, program: str, package: str, cost: str) -> DoctorCheck:
    found = shutil.which(program)
    if found:
        return DoctorCheck(name=name, state="ok", detail=found)
    return DoctorCheck(
        name=name, state="missing", detail=f"{program} is not installed", cost=cost,
        remedy=f"apt-get install {package}",
    )  # fmt: skip


# A line for each name in `checks` of the table of backends.
BACKEND_CHECKS: Final[Mapping[str, Check]] = {
    "qemu": _qemu,
    "kvm": _kvm,
    "firecracker": _firecracker,
    "containers": _containers,
    "windows": windows_check,
}

GUEST_CHECKS: Final[Mapping[str, Check]] = {
    "warden": _warden,
    **{name: BACKEND_CHECKS[name] for name in check_names()},
    "warm start": _warm_start,
    "kernel": _kernel,
    "init": _init_compiler,
    "erofs": _erofs,
    "mmdebstrap": _mmdebstrap,
    "confine": _confine,
    **HOST_CHECKS,
}
