"""`hpcc doctor`: what is present, what is missing, what that costs, and how to fix it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from hpcc.cli.cache.checkout import MARKER_REASONS, home_directory
from hpcc.cli.image import answers
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import CallerError, HpccError, NotFoundError
from hpcc.runtime.registry.table import check_names, is_linux_container

# An image, its layers and the guest's pieces take about 1 GB.
_ENOUGH_BYTES: Final = 4 << 30
_LITTLE_BYTES: Final = 512 << 20
_COMPILERS: Final = ("gcc", "g++", "clang", "clang++")
_ELF_INTERPRETER: Final = b"/ld-linux"
_MAX_LAUNCHER_BYTES: Final = 16 << 20
_WIDTH: Final = 10
State = Literal["ok", "degraded", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorCheck:
    """One line of the answer; `is_local` marks what the local cache needs."""

    name: str
    state: State
    detail: str
    cost: str = ""
    remedy: str = ""
    is_local: bool = False


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor`."""
    parser = subparsers.add_parser(
        "doctor", help="show what is present, what is missing, what that costs and how to fix it"
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.set_defaults(handler=run_doctor)


def run_doctor(args: argparse.Namespace) -> int:
    """Print every check; return 0 if the local cache works, else 1."""
    checks = asyncio.run(collect(Paths.from_env(os.environ)))
    if args.json:
        print(json.dumps([asdict(c) for c in checks], indent=1))
    else:
        for check in checks:
            _print(check)
        _print_summary(checks)
    return int(any(c.is_local and c.state == "missing" for c in checks))


async def collect(paths: Paths) -> list[DoctorCheck]:
    """Run every check; an unexpected error becomes that check's result and ends no other check."""
    asked: Sequence[tuple[str, Callable[[Paths], Awaitable[DoctorCheck]]]] = (
        ("python", _python),
        ("settings", _settings),
        ("compilers", _compilers),
        ("parity", _parity),
        ("launcher", _launcher),
        ("hit path", _hit_path),
        ("daemon", _daemon),
        ("sharing", _sharing),
        ("login", _login),
        ("disk", _disk),
        ("user", _user),
        ("warden", _warden),
        *((name, _BACKEND_CHECKS[name]) for name in check_names()),
        ("warm start", _warm_start),
        ("kernel", _kernel),
        ("init", _init_compiler),
        ("erofs", _erofs),
        ("mmdebstrap", _mmdebstrap),
        ("confine", _confine),
    )
    checks = []
    for name, ask in asked:
        try:
            checks.append(await ask(paths))
        except (HpccError, OSError) as error:
            said = next((c.name for c in checks if c.detail == str(error)), "")
            detail = f"not known: see {said}" if said else str(error)
            checks.append(DoctorCheck(name=name, state="missing", detail=detail))
    return checks


def _print(check: DoctorCheck) -> None:
    print(f"{check.state:<{_WIDTH}}{check.name:<12}{check.detail}")
    if check.state != "ok":
        if check.cost:
            print(f"{'':<{_WIDTH}}{'':<12}cost: {check.cost}")
        if check.remedy:
            print(f"{'':<{_WIDTH}}{'':<12}fix:  {check.remedy}")


def _print_summary(checks: Sequence[DoctorCheck]) -> None:
    local = [c.name for c in checks if c.is_local and c.state == "missing"]
    guests = [c.name for c in checks if not c.is_local and c.state == "missing"]
    print()
    print("local cache:  " + (f"does not work ({', '.join(local)})" if local else "works"))
    print("guests here:  " + (f"cannot run ({', '.join(guests)})" if guests else "can run"))


async def _sharing(_: Paths) -> DoctorCheck:
    """Check whether the current checkout shares its results with others."""
    from hpcc.cache.key.marker import search_marker  # late: as elsewhere in this package

    found = search_marker(os.fsencode(Path.cwd()), home_directory())
    if found.marker is not None:
        name = f" ({found.marker.name})" if found.marker.name else ""
        detail = f"between checkouts with a .hpcc: {os.fsdecode(found.marker.root)}{name}"
        return DoctorCheck(name="sharing", state="ok", detail=detail)
    if not found.refusal:
        return DoctorCheck(name="sharing", state="ok", detail="off: no .hpcc above this directory")
    return DoctorCheck(
        name="sharing", state="degraded",
        detail=f"the .hpcc above this directory does not count: {MARKER_REASONS[found.refusal]}",
        cost="results are not shared with other checkouts",
        remedy="fix or remove the marker (docs/cookbook.md)",
    )  # fmt: skip


async def _python(_: Paths) -> DoctorCheck:
    version = ".".join(str(n) for n in sys.version_info[:3])
    return DoctorCheck(
        name="python", state="ok", detail=f"{version} ({sys.executable})", is_local=True
    )


async def _settings(paths: Paths) -> DoctorCheck:
    try:
        load_settings(paths.config_file)
    except CallerError as error:
        return DoctorCheck(
            name="settings", state="missing", detail=str(error), is_local=True,
            cost="no daemon starts: every compile runs without the cache",
            remedy=f"fix {paths.config_file}, or move it away",
        )  # fmt: skip
    there = await asyncio.to_thread(paths.config_file.exists)
    detail = str(paths.config_file) if there else f"defaults: there is no {paths.config_file}"
    return DoctorCheck(name="settings", state="ok", detail=detail, is_local=True)


async def _compilers(_: Paths) -> DoctorCheck:
    found = [f"{c} ({path})" for c in _COMPILERS if (path := shutil.which(c))]
    if found:
        return DoctorCheck(name="compilers", state="ok", detail=", ".join(found), is_local=True)
    return DoctorCheck(
        name="compilers", state="missing", detail="no gcc or clang on PATH", is_local=True,
        cost="nothing can be compiled locally, and no remote compile can fall back",
        remedy="apt-get install gcc g++",
    )  # fmt: skip


async def _parity(paths: Paths) -> DoctorCheck:
    """Check whether the compilers here equal those of the image."""
    from hpcc.cli.doctor.parity import described, findings_here, remedies, subject_or_none

    name = "parity"
    subject = await asyncio.to_thread(subject_or_none, paths, load_settings(paths.config_file))
    if subject is None:
        return DoctorCheck(name=name, state="ok", detail="no farm and no image to compare with")
    where = f"image {subject.image.repository}@{subject.image.digest.value[:19]}"
    if subject.survey is not None:
        return DoctorCheck(
            name=name, state="degraded",
            detail=f"{where} was not understood: {subject.survey.trouble}",
            cost=answers.cost(subject.survey),
            remedy=answers.remedy(subject.survey, subject.image),
        )  # fmt: skip
    if subject.compilers is None:
        return DoctorCheck(
            name=name, state="ok",
            detail=f"{where}: its compilers are not known yet, or it did not answer every question;"
            " its workers ask it",
        )  # fmt: skip
    findings = await asyncio.to_thread(findings_here, subject, _COMPILERS)
    told = "; ".join(map(described, findings)) or "no compiler here"
    detail = f"{where}, {subject.parity}: {told}"
    if not subject.compilers:
        detail = f"{where} has no compiler that answers"
    if subject.label_trouble:
        detail += f"; {subject.label_trouble}"
    mend = remedies(findings, subject.image)
    if not mend and subject.compilers and not subject.label_trouble:
        return DoctorCheck(name=name, state="ok", detail=detail)
    refused = "such compiles run here, not on the farm (fallback.parity)"
    return DoctorCheck(
        name=name, state="degraded", detail=detail,
        cost=refused if subject.parity == "refuse" else "objects are the image's compiler's",
        remedy=mend or "use an image whose compilers match its labels and yours",
    )  # fmt: skip


async def _launcher(_: Paths) -> DoctorCheck:
    return await asyncio.to_thread(_check_launcher)


def _check_launcher() -> DoctorCheck:
    beside = Path(sysconfig.get_path("scripts"), "hpcc")
    found = shutil.which("hpcc") or (str(beside) if beside.exists() else None)
    if found is None:
        return DoctorCheck(
            name="launcher", state="missing", detail="hpcc is not on PATH", is_local=True,
            cost="compiles do not reach the cache",
            remedy="pip install hpcc, and put its bin directory on PATH",
        )  # fmt: skip
    with Path(found).open("rb") as file:
        head = file.read(_MAX_LAUNCHER_BYTES)
    if not head.startswith(b"\x7fELF"):
        return DoctorCheck(
            name="launcher", state="degraded", detail=f"{found} is not the C launcher",
            is_local=True, cost="every compile starts a Python interpreter",
            remedy="pip install --force-reinstall hpcc",
        )  # fmt: skip
    if _ELF_INTERPRETER in head:
        return DoctorCheck(
            name="launcher", state="degraded", detail=f"{found}, dynamic", is_local=True,
            cost="about a third of a millisecond for each compile",
            remedy="apt-get install musl-tools && pip install --force-reinstall hpcc",
        )  # fmt: skip
    return DoctorCheck(name="launcher", state="ok", detail=f"{found}, static", is_local=True)


async def _hit_path(_: Paths) -> DoctorCheck:
    from hpcc.cache.replay.engine import why_not_native

    problem = await asyncio.to_thread(why_not_native)
    if problem is None:
        return DoctorCheck(name="hit path", state="ok", detail="native library", is_local=True)
    return DoctorCheck(
        name="hit path", state="degraded", detail=f"in Python: {problem}", is_local=True,
        cost="a hit takes about 0.1 ms more, plus 2 µs for each header",
        remedy="apt-get install gcc libc6-dev && pip install --force-reinstall hpcc",
    )  # fmt: skip


async def _daemon(paths: Paths) -> DoctorCheck:
    from hpcc.daemon.client import query

    try:
        answer = await asyncio.to_thread(query, paths, "status")
    except NotFoundError:
        return DoctorCheck(
            name="daemon", state="ok", detail="not running; the first compile starts it",
            is_local=True,
        )  # fmt: skip
    except HpccError as error:
        return DoctorCheck(
            name="daemon", state="missing", detail=str(error), is_local=True,
            cost="every compile runs without the cache", remedy="hpcc stop; hpcc start",
        )  # fmt: skip
    detail = f"running, pid {answer.get('pid')}, version {answer.get('version')}"
    return DoctorCheck(name="daemon", state="ok", detail=detail, is_local=True)


async def _login(paths: Paths) -> DoctorCheck:
    """Check only the stored login; `hpcc whoami --check` asks the scheduler."""
    from hpcc.identity.login_file import load_login_or_none
    from hpcc.ports import SystemClock

    login = load_login_or_none(paths.login_file)
    if login is None:
        return DoctorCheck(
            name="login", state="ok", detail="not logged in; a farm of `hpcc up` needs no login"
        )
    where = f"{login.principal or '?'} of {login.farm.tenant} at {login.farm.scheduler}"
    is_over = login.method == "device" and login.expires_at <= SystemClock().now()
    if login.ended or (is_over and not login.refresh_token):
        return DoctorCheck(
            name="login", state="degraded", detail=f"{where}: expired or ended",
            cost="compiles run on this machine, not on the farm", remedy="hpcc login",
        )  # fmt: skip
    return DoctorCheck(name="login", state="ok", detail=where)


async def _disk(paths: Paths) -> DoctorCheck:
    there = paths.cache
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    detail = f"{free / 1e9:.1f} GB free for {paths.cache}"
    if not os.access(there, os.W_OK):
        return DoctorCheck(
            name="disk", state="missing", detail=f"{there} is not writable", is_local=True,
            cost="nothing can be cached", remedy=f"make {there} writable, or set HPCC_DIR",
        )  # fmt: skip
    state: State = "ok" if free >= _ENOUGH_BYTES else "degraded"
    return DoctorCheck(
        name="disk", state="missing" if free < _LITTLE_BYTES else state, detail=detail,
        is_local=True, cost="toolchain images may not fit, and the cache stays small",
        remedy="hpcc clean, hpcc image rm, or point HPCC_DIR at a larger disk",
    )  # fmt: skip


async def _user(_: Paths) -> DoctorCheck:
    if os.geteuid() == 0:
        return DoctorCheck(name="user", state="ok", detail="root: each VMM gets a separate uid")
    return DoctorCheck(
        name="user", state="degraded", detail=f"uid {os.geteuid()}",
        cost="VMMs run as this user, confined only by seccomp; only root can install packages",
        remedy="run `hpcc up` with sudo where that matters",
    )  # fmt: skip


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
    return DoctorCheck(name="qemu", state="ok", detail=version)


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
        cost="guests run under QEMU: the same boundary, with more VMM code in it",
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


async def _windows(paths: Paths) -> DoctorCheck:
    from hpcc.cli.doctor.windows import windows_guests

    settings = load_settings(paths.config_file).worker
    said = await windows_guests(settings, program_files=os.environ.get("PROGRAMFILES", ""))
    return DoctorCheck(
        name="windows", state=said.state, detail=said.detail, cost=said.cost, remedy=said.remedy
    )


# A line for each name in `checks` of the table of backends.
_BACKEND_CHECKS: Final[Mapping[str, Callable[[Paths], Awaitable[DoctorCheck]]]] = {
    "qemu": _qemu,
    "kvm": _kvm,
    "firecracker": _firecracker,
    "containers": _containers,
    "windows": _windows,
}


async def _kernel(paths: Paths) -> DoctorCheck:
    from hpcc.runtime.assets.kernel import distribution_id, kernel_package_name, packages_for
    from hpcc.runtime.host.tools import run_tool

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
