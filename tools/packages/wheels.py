"""The libraries of the lock file as wheels: fetched by pip, checked here, and unpacked."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from release.dsse import RefusedError
from release.lock import Package as Pin
from release.lock import read_lock

from packages.entries import FILE, PROGRAM, Entry
from packages.table import PYTHONS

LOCK: Final = "requirements.lock"
# Below these directories Python finds modules; the first is for every version.
ANY: Final = "usr/lib/hpcc/python"
_OF_ONE: Final = "usr/lib/hpcc/lib/python{}/site-packages"
# pip prefers the first. Wheels name any of them, and what has a Python of `PYTHONS` has glibc 2.28.
_PLATFORMS: Final = ("_2_28", "_2_27", "_2_26", "_2_24", "_2_17", "2014")
_FOR_ONE: Final = re.compile(r"cp3(\d+)")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel whose digest is in the lock file; `python` is empty if it fits every version."""

    path: Path
    name: str
    version: str
    python: str

    @property
    def site(self) -> str:
        """Return the directory that it is unpacked to."""
        return _OF_ONE.format(self.python) if self.python else ANY


def default_directory(lock: str, machine: str = "") -> Path:
    """Return where the wheels of this lock file are kept."""
    wanted = repr((lock, PYTHONS, _PLATFORMS, machine or platform.machine()))
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "hpcc-build", hashlib.sha256(wanted.encode()).hexdigest()[:16])


def fetch(root: Path, directory: Path) -> None:
    """Download the wheels of the lock file for each Python, unless they are there.

    Raises:
        RefusedError: pip cannot download one, or a digest is not in the lock file.
    """
    if directory.is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=directory.parent) as scratch:
        place = Path(scratch, "wheels")
        platforms = [f"--platform=manylinux{p}_{platform.machine()}" for p in _PLATFORMS]
        for version in PYTHONS:
            command = [
                sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check",
                "--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp",
                f"--python-version={version}", *platforms, "-d", str(place),
                "-r", str(root / LOCK),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode != 0:
                problem = done.stderr.decode(errors="replace").strip()[-2000:]
                raise RefusedError(f"wheels for Python {version} cannot be fetched:\n{problem}")
        try:
            place.rename(directory)
        except OSError:
            # Somebody else was faster.
            if not directory.is_dir():
                raise


def read(directory: Path, lock: str) -> list[Wheel]:
    """Return the wheels in a directory, each checked against the lock file.

    Raises:
        RefusedError: a digest differs, a file is not a wheel, or a Python has none of a pin.
    """
    pins = {canonicalize_name(pin.name): pin for pin in read_lock(lock)}
    found = [_checked(path, pins) for path in sorted(directory.iterdir())]
    for name in pins:
        here = {wheel.python for wheel in found if wheel.name == name}
        if here not in ({""}, {*PYTHONS}):
            raise RefusedError(
                f"{name} has wheels for {sorted(here)}, not for {PYTHONS} in {directory}"
            )
    return found


def _checked(path: Path, pins: dict[str, Pin]) -> Wheel:
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
    except ValueError as error:
        raise RefusedError(f"{path} is not a wheel") from error
    pin = pins.get(name)
    if pin is None or pin.version != str(version):
        raise RefusedError(f"{path.name} is not in {LOCK}")
    if hashlib.sha256(path.read_bytes()).hexdigest() not in pin.digests:
        raise RefusedError(f"{path.name} has a digest that is not in {LOCK}: remove {path.parent}")
    return Wheel(path, name, str(version), _python_of(path, tags))


def _python_of(path: Path, tags: Iterable[Tag]) -> str:
    """Return the version of Python that a wheel is for, empty if it fits each of `PYTHONS`."""
    found = set()
    for tag in tags:
        match = _FOR_ONE.fullmatch(tag.interpreter)
        # A stable ABI is that of the named version and of later ones.
        is_old = match is not None and int(match[1]) <= int(PYTHONS[0].partition(".")[2])
        if tag.interpreter == "py3" or (tag.abi == "abi3" and is_old):
            return ""
        found |= {f"3.{match[1]}"} if match else set()
    if len(found) != 1:
        raise RefusedError(f"{path.name} is for no version of Python that is known here")
    return found.pop()


def of_extra(extra: str, project: str, lock: str) -> set[str]:
    """Return the names of what an extra brings beyond the extras in it, from the lock file."""
    extras = tomllib.loads(project)["project"]["optional-dependencies"]
    found: dict[str, set[str]] = {}
    for name in ("client", "farm"):
        wanted = {canonicalize_name(Requirement(line).name) for line in extras[name]} - {"hpcc"}
        pins, before = read_lock(lock), -1
        while len(wanted) != before:
            before = len(wanted)
            wanted |= {canonicalize_name(p.name) for p in pins if wanted & {*p.via}}
        found[name] = wanted
    return found["client"] if extra == "client" else found["farm"] - found["client"]


def unpacked(wheels: Sequence[Wheel], installer: str) -> Iterator[Entry]:
    """Yield what pip would install of these wheels, without programs.

    Raises:
        RefusedError: a wheel has files for other places than the directory of modules.
    """
    for wheel in wheels:
        with zipfile.ZipFile(wheel.path) as archive:
            yield from _unpacked(archive, wheel.site, installer)


def _unpacked(archive: zipfile.ZipFile, site: str, installer: str) -> Iterator[Entry]:
    for info in archive.infolist():
        if info.is_dir():
            continue
        top = info.filename.partition("/")[0]
        if top.endswith(".data"):
            raise RefusedError(f"{archive.filename} has {info.filename}, which no package installs")
        # Some wheels mark modules as executable, others list shared libraries as such.
        yield Entry(f"{site}/{info.filename}", archive.read(info), FILE)
        if info.filename == f"{top}/METADATA" and top.endswith(".dist-info"):
            yield Entry(f"{site}/{top}/INSTALLER", f"{installer}\n".encode())


def own(path: Path, installer: str) -> Iterator[Entry]:
    """Yield hpcc itself: its modules, and its launcher."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            top, _, rest = info.filename.partition("/")
            if top.endswith(".data"):
                if rest == "scripts/hpcc":
                    yield Entry("usr/lib/hpcc/bin/hpcc", archive.read(info), PROGRAM)
                continue
            yield Entry(f"{ANY}/{info.filename}", archive.read(info), FILE)
            if rest == "METADATA" and top.endswith(".dist-info"):
                yield Entry(f"{ANY}/{top}/INSTALLER", f"{installer}\n".encode())
