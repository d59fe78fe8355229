"""The lines of `hpcc doctor` about compiles on a Linux machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcc.cli.cache.checkout import home_directory
from hpcc.cli.doctor import common
from hpcc.cli.doctor.check import Check, DoctorCheck
from hpcc.cli.doctor.parity import parity_check
from hpcc.config.extras import reinstalling
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import HpccError
from hpcc.core.reasons.private import PrivateReason

_COMPILERS: Final = ("gcc", "g++", "clang", "clang++")
_ELF_INTERPRETER: Final = b"/ld-linux"
_MAX_LAUNCHER_BYTES: Final = 16 << 20


async def _compilers(_: Paths) -> DoctorCheck:
    found = [f"{c} ({path})" for c in _COMPILERS if (path := shutil.which(c))]
    if found:
        return DoctorCheck(name="compilers", state="ok", detail=", ".join(found), is_local=True)
    return DoctorCheck(
        name="compilers", state="missing", detail="no gcc or clang on PATH", is_local=True,
        cost="nothing can be compiled locally, and no remote compile can fall back",
        remedy="apt-get install gcc g++",
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
            remedy=f"{reinstalling()}; put {beside.parent} on PATH",
        )  # fmt: skip
    with Path(found).open("rb") as file:
        head = file.read(_MAX_LAUNCHER_BYTES)
    if not head.startswith(b"\x7fELF"):
        return DoctorCheck(
            name="launcher", state="degraded", detail=f"{found} is not the C launcher",
            is_local=True, cost="every compile starts a Python interpreter",
            remedy=reinstalling(),
        )  # fmt: skip
    if _ELF_INTERPRETER in head:
        return DoctorCheck(
            name="launcher", state="degraded", detail=f"{found}, dynamic", is_local=True,
            cost="about a third of a millisecond for each compile",
            remedy=f"apt-get install musl-tools && {reinstalling()}",
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
        remedy=f"apt-get install gcc libc6-dev && {reinstalling()}",
    )  # fmt: skip


async def _sharing(_: Paths) -> DoctorCheck:
    """Check whether the current checkout shares its results with others."""
    from hpcc.cache.key.marker import search_marker  # late: as elsewhere in this package
    from hpcc.cache.key.share import may_share

    home = home_directory()
    found = search_marker(os.fsencode(Path.cwd()), home)
    reason = PrivateReason(found.refusal) if found.refusal else None
    if found.marker is not None:
        if may_share(found.marker.root, home):
            name = f" ({found.marker.name})" if found.marker.name else ""
            detail = f"between checkouts with a .hpcc: {os.fsdecode(found.marker.root)}{name}"
            return DoctorCheck(name="sharing", state="ok", detail=detail)
        reason = PrivateReason.ROOT
    if reason is None:
        return DoctorCheck(name="sharing", state="ok", detail="off: no .hpcc above this directory")
    return DoctorCheck(
        name="sharing", state="degraded",
        detail=f"the .hpcc above this directory does not count: {reason.text}",
        cost="results are not shared with other checkouts", remedy=reason.remedy,
    )  # fmt: skip


async def _remote_cache(paths: Paths) -> DoctorCheck:
    """Check what can be checked of the remote cache without a request."""
    return await asyncio.to_thread(_check_remote_cache, paths)


def _check_remote_cache(paths: Paths) -> DoctorCheck:
    from hpcc.config.remote_cache import place_of

    name, remote = "remote cache", load_settings(paths.config_file).cache.remote
    if place_of(remote) is None:
        return DoctorCheck(name=name, state="ok", detail="off: no url in [cache.remote]")
    from hpcc.cache.signed.opening import check_files
    from hpcc.cli.cache.remote import expiring, key_lines
    from hpcc.ports import SystemClock

    try:
        check_files(remote)
        troubles = expiring(remote.trusted_keys, SystemClock().now())
        lines = key_lines(paths, remote)
    except HpccError as error:
        return DoctorCheck(
            name=name, state="missing", detail=f"{remote.url}: {error}",
            cost="nothing is fetched or uploaded", remedy=f"fix {paths.config_file}",
        )  # fmt: skip
    if any(line.startswith("keys ") for line in lines):
        troubles.append("no key counts in this directory")
    if troubles:
        return DoctorCheck(
            name=name, state="degraded", detail=f"{remote.url}: {'; '.join(troubles)}",
            cost="misses are compiled here", remedy="hpcc cache status; hpcc cache trust",
        )  # fmt: skip
    return DoctorCheck(name=name, state="ok", detail=f"{remote.url}, mode {remote.mode}")


async def _user(_: Paths) -> DoctorCheck:
    from hpcc.runtime.host.users import helper_socket

    if os.geteuid() == 0:
        return DoctorCheck(name="user", state="ok", detail="root: each VMM gets a separate uid")
    if socket := helper_socket():
        detail = f"uid {os.geteuid()}: the helper at {socket} gives each VMM a separate uid"
        return DoctorCheck(name="user", state="ok", detail=detail)
    return DoctorCheck(
        name="user", state="degraded", detail=f"uid {os.geteuid()}",
        cost="VMMs run as this user, confined only by seccomp; only root can install packages",
        remedy="run `hpcc up` with sudo where that matters",
    )  # fmt: skip


LOCAL_CHECKS: Final[Mapping[str, Check]] = {
    "python": common.python_check,
    "settings": common.settings_check,
    "extras": common.extras_check,
    "compilers": _compilers,
    "parity": parity_check,
    "launcher": _launcher,
    "hit path": _hit_path,
    "daemon": common.daemon_check,
    "sharing": _sharing,
    "agreement": common.agreement_check,
    "remote cache": _remote_cache,
    "login": common.login_check,
    "disk": common.disk_check,
    "user": _user,
}
