"""The lines of `hpcc doctor` about compiles on this machine, the login and the disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcc.cli.cache.checkout import home_directory
from hpcc.cli.doctor.check import Check, DoctorCheck, State
from hpcc.cli.image import answers
from hpcc.config.extras import Extra, adding, missing_modules, reinstalling
from hpcc.config.owners import TRUST_VARIABLE, refuse_foreign_owner
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import CallerError, HpccError, NotFoundError
from hpcc.core.reasons.private import PrivateReason

# An image, its layers and the guest's pieces take about 1 GB.
_ENOUGH_BYTES: Final = 4 << 30
_LITTLE_BYTES: Final = 512 << 20
_COMPILERS: Final = ("gcc", "g++", "clang", "clang++")
_ELF_INTERPRETER: Final = b"/ld-linux"
_MAX_LAUNCHER_BYTES: Final = 16 << 20


async def _python(_: Paths) -> DoctorCheck:
    version = ".".join(str(n) for n in sys.version_info[:3])
    return DoctorCheck(
        name="python", state="ok", detail=f"{version} ({sys.executable})", is_local=True
    )


async def _extras(paths: Paths) -> DoctorCheck:
    """Check whether the packages are installed that settings and files here ask for."""
    return await asyncio.to_thread(_check_extras, paths)


def _check_extras(paths: Paths) -> DoctorCheck:
    name, wanted = "extras", "a farm" if paths.farm_file.exists() else ""
    if not wanted and load_settings(paths.config_file).cache.remote.url:
        wanted = "the remote cache"
    if wanted and missing_modules("client"):
        return DoctorCheck(
            name=name, state="missing", detail=f"{wanted} needs hpcc[client]",
            cost=f"{wanted} is not used: misses are compiled here", remedy=adding("client"),
        )  # fmt: skip
    known: tuple[Extra, ...] = ("client", "farm", "parquet")
    found = ", ".join(extra for extra in known if not missing_modules(extra))
    detail = found or f"none, for the local cache only; a farm's client: {adding('client')}"
    return DoctorCheck(name=name, state="ok", detail=detail)


async def _settings(paths: Paths) -> DoctorCheck:
    try:
        await asyncio.to_thread(refuse_foreign_owner, paths, os.environ)
        load_settings(paths.config_file)
    except CallerError as error:
        is_foreign = error.reason == "foreign-owner"
        return DoctorCheck(
            name="settings", state="missing", detail=str(error), is_local=True,
            cost="no daemon starts: every compile runs without the cache",
            remedy=f"set HPCC_DIR or {TRUST_VARIABLE}" if is_foreign
            else f"fix {paths.config_file}, or move it away",
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


async def _agreement(paths: Paths) -> DoctorCheck:
    """Check whether people who use different workers of the farm can agree on results."""
    from hpcc.config.farm_session import load_farm_session_or_none

    session = await asyncio.to_thread(load_farm_session_or_none, paths.farm_session_file)
    known = session.agreement if session is not None else ""
    detail = {
        "together": "the farm's workers see each other's claims",
        "apart": "the farm's workers have no common store: clients carry claims between them",
    }.get(known, "no farm with agreement")
    return DoctorCheck(name="agreement", state="ok", detail=detail)


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


async def _login(paths: Paths) -> DoctorCheck:
    """Check only the stored login; `hpcc whoami --check` asks the scheduler."""
    nobody = DoctorCheck(
        name="login", state="ok", detail="not logged in; a farm of `hpcc up` needs no login"
    )
    if not await asyncio.to_thread(os.path.lexists, paths.login_file):
        return nobody
    from hpcc.identity.login.file import load_login_or_none
    from hpcc.ports import SystemClock

    login = load_login_or_none(paths.login_file)
    if login is None:
        return nobody
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
    "python": _python,
    "settings": _settings,
    "extras": _extras,
    "compilers": _compilers,
    "parity": _parity,
    "launcher": _launcher,
    "hit path": _hit_path,
    "daemon": _daemon,
    "sharing": _sharing,
    "agreement": _agreement,
    "remote cache": _remote_cache,
    "login": _login,
    "disk": _disk,
    "user": _user,
}
