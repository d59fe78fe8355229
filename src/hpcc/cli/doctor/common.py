"""The lines of `hpcc doctor` that are the same on every operating system."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from typing import Final

from hpcc.cli.doctor.check import DoctorCheck, State
from hpcc.config.extras import Extra, adding, missing_modules
from hpcc.config.owners import TRUST_VARIABLE, refuse_foreign_owner
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import CallerError, HpccError, NotFoundError

# An image, its layers and the guest's pieces take about 1 GB.
_ENOUGH_BYTES: Final = 4 << 30
_LITTLE_BYTES: Final = 512 << 20
_IMAGES: Final = "" if sys.platform == "win32" else "hpcc image rm, "  # no such command there


async def python_check(_: Paths) -> DoctorCheck:
    """Say which Python runs hpcc."""
    version = ".".join(str(n) for n in sys.version_info[:3])
    return DoctorCheck(
        name="python", state="ok", detail=f"{version} ({sys.executable})", is_local=True
    )


async def extras_check(paths: Paths) -> DoctorCheck:
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


async def settings_check(paths: Paths) -> DoctorCheck:
    """Check config.toml and the owner of the directory."""
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


async def daemon_check(paths: Paths) -> DoctorCheck:
    """Ask the daemon, if one runs."""
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


async def agreement_check(paths: Paths) -> DoctorCheck:
    """Check whether people who use different workers of the farm can agree on results."""
    from hpcc.config.farm_session import load_farm_session_or_none

    session = await asyncio.to_thread(load_farm_session_or_none, paths.farm_session_file)
    known = session.agreement if session is not None else ""
    detail = {
        "together": "the farm's workers see each other's claims",
        "apart": "the farm's workers have no common store: clients carry claims between them",
    }.get(known, "no farm with agreement")
    return DoctorCheck(name="agreement", state="ok", detail=detail)


async def login_check(paths: Paths) -> DoctorCheck:
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


async def disk_check(paths: Paths) -> DoctorCheck:
    """Check the room for the cache."""
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
        remedy=f"hpcc clean, {_IMAGES}or point HPCC_DIR at a larger disk",
    )  # fmt: skip


async def windows_check(paths: Paths) -> DoctorCheck:
    """Check what guests on Windows need."""
    from hpcc.cli.base.windows_guests import windows_guests

    settings = load_settings(paths.config_file).worker
    said = await windows_guests(settings, program_files=os.environ.get("PROGRAMFILES", ""))
    return DoctorCheck(
        name="windows", state=said.state, detail=said.detail, cost=said.cost, remedy=said.remedy
    )
