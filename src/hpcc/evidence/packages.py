"""Names the package of a system file, by the database of dpkg on this machine.

A file counts as a package's only if dpkg lists it with the MD5 that its bytes have. So it is what
the distribution shipped, as this machine says. Of a package without checksums, a file counts that
dpkg lists and only root can write, and a note says so. MD5 is what dpkg has. To use
a second file with the same MD5, an attacker would have to replace the system's file as root.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

_DATABASE: Final = Path("/var/lib/dpkg")
_SYSTEM: Final = ("/usr/", "/lib/", "/lib64/", "/lib32/")
_OS_RELEASE: Final = Path("/etc/os-release")
_UNCHECKED: Final = "the package has no checksums; only root can write the file"
_MAX_FILE_BYTES: Final = 1 << 30
_CHUNK: Final = 1 << 20


class SystemPackage(NamedTuple):
    """The package URL of a system file, and what is to say about it."""

    url: str
    note: str = ""


def packages_of(
    digests: Mapping[str, str], database: Path = _DATABASE, os_release: Path = _OS_RELEASE
) -> dict[str, SystemPackage]:
    """Return the packages of those paths whose file has this SHA-256 and is a package's."""
    wanted = {path: _spellings(path) for path in digests if path.startswith(_SYSTEM)}
    listed = _listed({name for names in wanted.values() for name in names}, database)
    if not listed:
        return {}
    versions, vendor = _versions(database, {p for p, _ in listed.values()}), _vendor(os_release)
    found = {}
    for path, names in wanted.items():
        entry = next((listed[name] for name in names if name in listed), None)
        if entry is None or entry[0] not in versions:
            continue
        package, md5 = entry
        sha256, real_md5 = _hashes(path)
        if sha256 == digests[path] and (md5 == real_md5 if md5 else _is_of_root(path)):
            url = _url(vendor, package, *versions[package])
            found[path] = SystemPackage(url, "" if md5 else _UNCHECKED)
    return found


def _spellings(path: str) -> tuple[str, ...]:
    """Return how dpkg may spell a path: packages name /lib or /usr/lib for one directory."""
    real = str(Path(path).resolve())
    names = []
    for name in dict.fromkeys((path, real)):
        names += [name, name.removeprefix("/usr"), f"/usr{name}"]
    return tuple(name.removeprefix("/") for name in names)


def _listed(names: set[str], database: Path) -> dict[str, tuple[str, str]]:
    """Return the package and MD5 of each of these paths, without the first slash.

    The MD5 is empty for a package without checksums.
    """
    found: dict[str, tuple[str, str]] = {}
    for file in sorted(database.glob("info/*.md5sums")) if names else ():
        for line in _lines(file):
            md5, _, name = line.partition("  ")
            if name in names:
                found.setdefault(name, (_package(file), md5))
    rest = names - set(found)
    for file in sorted(database.glob("info/*.list")) if rest else ():
        if any(_lines(file.with_suffix(".md5sums"))):
            continue
        for line in _lines(file):
            if line[1:] in rest:
                found.setdefault(line[1:], (_package(file), ""))
    return found


def _package(file: Path) -> str:
    return file.name.rpartition(".")[0].partition(":")[0]


def _is_of_root(path: str) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116 - a path as the linker spelled it
    except OSError:
        return False
    return status.st_uid == 0 and not status.st_mode & 0o022


def _versions(database: Path, packages: set[str]) -> dict[str, tuple[str, str]]:
    """Return version and architecture of each installed package."""
    found: dict[str, tuple[str, str]] = {}
    name = version = architecture = ""
    for line in (*_lines(database / "status"), ""):
        key, _, value = line.partition(": ")
        if key == "Package":
            name = value
        elif key == "Version":
            version = value
        elif key == "Architecture":
            architecture = value
        elif not line:
            if name in packages and version:
                found.setdefault(name, (version, architecture))
            name = version = architecture = ""
    return found


def _vendor(os_release: Path) -> str:
    for line in _lines(os_release):
        if line.startswith("ID="):
            return quote(line[3:].strip('"'), safe="")
    return "unknown"


def _url(vendor: str, package: str, version: str, architecture: str) -> str:
    """Return a package URL, as https://github.com/package-url/purl-spec has it."""
    what = f"{quote(package, safe='')}@{quote(version, safe='~')}"
    return f"pkg:deb/{vendor}/{what}?arch={quote(architecture, safe='')}"


def _hashes(path: str) -> tuple[str, str]:
    """Return SHA-256 and MD5 of a file in hex; empty texts if it cannot be read."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    room = _MAX_FILE_BYTES
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path as the linker spelled it
            while data := file.read(_CHUNK):
                sha256.update(data)
                md5.update(data)
                room -= len(data)
                if room < 0:
                    return "", ""
    except OSError:
        return "", ""
    return sha256.hexdigest(), md5.hexdigest()


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                yield line.rstrip("\n")
    except OSError:
        return
