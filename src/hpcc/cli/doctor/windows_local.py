"""The lines of `hpcc doctor` about compiles on Windows. Run under Wine, not yet on Windows."""

from __future__ import annotations

import asyncio
import os
import shutil
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.cache.key.marker import MAX_MARKER_BYTES, MarkerError, parse_marker
from hpcc.cache.remote.windows_root import marker_of, marker_places, windows_marker
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.sharing import why_place_is_private
from hpcc.cli.doctor import common
from hpcc.cli.doctor.check import Check, DoctorCheck
from hpcc.cli.doctor.parity import parity_check
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import WindowsPath, WindowsPathError, parse_windows_path
from hpcc.core.reasons.private import PrivateReason
from hpcc.windows.library import load_library

_COMPILERS: Final = ("cl", "clang-cl")
_FALLBACK: Final = "nothing can be compiled locally, and no remote compile can fall back"
_INSTALLING: Final = "install the wheel or the zip for Windows (docs/windows.md, A client)"
# How the launcher in C spells its pipe; pip's own start-up programs do not have it.
_PIPE: Final = "\\\\.\\pipe\\hpcc-".encode("utf-16-le")
_MAX_LAUNCHER_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsView:
    """What the checks look at: an environment, the working directory, a disk and the user.

    `owner` is the user's SID.
    """

    env: Mapping[str, str]
    cwd: str
    disk: CacheDisk
    owner: str
    is_raised: bool

    @property
    def home(self) -> str:
        """The profile's directory, "" if unknown."""
        return self.env.get("USERPROFILE", "")


def view_of_this_machine() -> WindowsView:
    """Return the view of this process. Windows only."""
    from hpcc.cache.windows.system_disk import WindowsDisk
    from hpcc.windows.users import is_raised, own_sid

    library = load_library()
    return WindowsView(
        env=os.environ,
        cwd=str(Path.cwd()),
        disk=WindowsDisk(library),
        owner=own_sid(library),
        is_raised=is_raised(library),
    )


def compilers(view: WindowsView) -> DoctorCheck:
    """Check whether cl or clang-cl is on PATH, and whether cl has its headers."""
    name = "compilers"
    found = {c: path for c in _COMPILERS if (path := shutil.which(c, path=view.env.get("PATH")))}
    if not found:
        return DoctorCheck(
            name=name, state="missing", detail="no cl or clang-cl on PATH", is_local=True,
            cost=_FALLBACK,
            remedy="open a `Developer PowerShell for VS`, or call vcvarsall.bat first",
        )  # fmt: skip
    detail = ", ".join(f"{c} ({path})" for c, path in found.items())
    if "cl" in found and not view.env.get("INCLUDE"):
        return DoctorCheck(
            name=name, state="degraded", detail=f"{detail}; INCLUDE is not set", is_local=True,
            cost="cl does not find the headers of Windows and its C library",
            remedy="open a `Developer PowerShell for VS`, or call vcvarsall.bat first",
        )  # fmt: skip
    return DoctorCheck(name=name, state="ok", detail=detail, is_local=True)


def launcher(view: WindowsView, scripts: Path) -> DoctorCheck:
    """Check whether the hpcc on PATH is the launcher in C."""
    name, beside = "launcher", scripts / "hpcc.exe"
    found = shutil.which("hpcc", path=view.env.get("PATH"))
    if found is None:
        remedy = f"put {scripts} on PATH" if beside.exists() else _INSTALLING
        return DoctorCheck(
            name=name, state="missing", detail="hpcc is not on PATH", is_local=True,
            cost="compiles do not reach the cache", remedy=remedy,
        )  # fmt: skip
    with Path(found).open("rb") as file:
        data = file.read(_MAX_LAUNCHER_BYTES)
    if not data.startswith(b"MZ") or _PIPE not in data:
        return DoctorCheck(
            name=name, state="degraded", detail=f"{found} is not the C launcher", is_local=True,
            cost="every compile starts a Python interpreter",
            remedy=_INSTALLING,
        )  # fmt: skip
    return DoctorCheck(name=name, state="ok", detail=found, is_local=True)


def file_system(view: WindowsView) -> DoctorCheck:
    """Check whether files here have a time of change, without which no result is kept."""
    name, times = "file system", view.disk.times(view.cwd, is_at_rest=False)
    if times is not None and times.changed_ns:
        detail = f"{view.cwd}: files have a time of change"
        return DoctorCheck(name=name, state="ok", detail=detail, is_local=True)
    trouble = "it cannot be read" if times is None else "files have no time of change (FAT)"
    return DoctorCheck(
        name=name, state="degraded", detail=f"{view.cwd}: {trouble}", is_local=True,
        cost="no result of a source there is kept: every compile runs the compiler",
        remedy="keep sources on NTFS or ReFS, such as a Dev Drive",
    )  # fmt: skip


def sharing(view: WindowsView) -> DoctorCheck:
    """Check whether the current checkout shares its results with others on this machine."""
    name = "sharing"
    try:
        real = parse_windows_path(view.disk.real(view.cwd))
        found = windows_marker(
            view.disk, view.disk.look, view.cwd.encode(), home=view.home, owner=view.owner
        )
    except (WindowsPathError, OSError, ValueError) as error:
        return DoctorCheck(
            name=name, state="degraded", detail=f"{view.cwd}: {error}",
            cost="results are not shared with other checkouts",
            remedy="work in a directory of a local drive",
        )  # fmt: skip
    if found is not None:
        reason = why_place_is_private(found[0], view.cwd, real, view.home)
        if not reason:
            title = f" ({found[1].name})" if found[1].name else ""
            detail = f"between checkouts with a .hpcc: {found[0]}{title}"
            return DoctorCheck(name=name, state="ok", detail=detail)
        detail, remedy = PrivateReason(reason).text, PrivateReason(reason).remedy
    else:
        detail, remedy = _refused_marker(view, real)
        if not detail:
            return DoctorCheck(name=name, state="ok", detail="off: no .hpcc above this directory")
    return DoctorCheck(
        name=name, state="degraded",
        detail=f"the .hpcc above this directory does not count: {detail}",
        cost="results are not shared with other checkouts", remedy=remedy,
    )  # fmt: skip


def _refused_marker(view: WindowsView, real: WindowsPath) -> tuple[str, str]:
    """Return why the nearest marker that exists does not count, and a remedy; "" without one."""
    for directory in marker_places(real, view.home):
        place = marker_of(directory)
        found = view.disk.look(place)
        if found is None:
            continue
        if found.is_link:
            return f"{place} is a link", "make it a file"
        if not found.is_directory and (trouble := _trouble(view.disk, place)):
            return f"{place}: {trouble}", "repair it; an empty file is enough"
        return f"{place} belongs to another user ({found.owner})", "make it anew as this user"
    return "", ""


def _trouble(disk: CacheDisk, place: str) -> str:
    data = disk.read(place, MAX_MARKER_BYTES)
    try:
        if data is not None:
            parse_marker(b"", data)
    except MarkerError as error:
        return str(error)
    return "" if data is not None else "it cannot be read"


def user(view: WindowsView) -> DoctorCheck:
    """Check whether the daemon that this user starts would cache anything."""
    if not view.is_raised:
        detail = f"{view.env.get('USERNAME', '')} ({view.owner})".lstrip()
        return DoctorCheck(name="user", state="ok", detail=detail, is_local=True)
    return DoctorCheck(
        name="user", state="degraded", detail=f"an elevated prompt ({view.owner})", is_local=True,
        cost="a daemon that starts here caches nothing: compiles count as bypass.elevated-daemon",
        remedy="hpcc stop, then build from a prompt that is not elevated",
    )  # fmt: skip


async def _remote_cache(paths: Paths) -> DoctorCheck:
    """Say that the remote cache is for POSIX only, if one is set."""
    name, url = "remote cache", load_settings(paths.config_file).cache.remote.url
    if not url:
        return DoctorCheck(name=name, state="ok", detail="off: no url in [cache.remote]")
    return DoctorCheck(
        name=name, state="degraded", detail=f"{url} is not used on Windows yet",
        cost="misses are compiled here, or on a farm", remedy="log in to a farm: hpcc login",
    )  # fmt: skip


def _on(check: Callable[[WindowsView], DoctorCheck]) -> Check:
    async def ask(_: Paths) -> DoctorCheck:
        return await asyncio.to_thread(lambda: check(view_of_this_machine()))

    return ask


def _launcher(view: WindowsView) -> DoctorCheck:
    return launcher(view, Path(sysconfig.get_path("scripts")))


WINDOWS_CHECKS: Final[Mapping[str, Check]] = {
    "python": common.python_check,
    "settings": common.settings_check,
    "extras": common.extras_check,
    "compilers": _on(compilers),
    "launcher": _on(_launcher),
    "daemon": common.daemon_check,
    "file system": _on(file_system),
    "sharing": _on(sharing),
    "parity": parity_check,
    "agreement": common.agreement_check,
    "remote cache": _remote_cache,
    "login": common.login_check,
    "disk": common.disk_check,
    "user": _on(user),
}
WINDOWS_GUEST_CHECKS: Final[Mapping[str, Check]] = {"windows": common.windows_check}
