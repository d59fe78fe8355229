"""The archive for Windows: hpcc with its own Python in one zip, and winget's manifest for it.

Nothing is installed: the zip is unpacked somewhere, and that directory is in PATH. In it are the
programs of the wheel, `hpcc-cli.exe`, CPython's embeddable distribution and, below `lib`, hpcc's
modules. With `libraries`, wheels for Windows, also those of the extra `client`: without them hpcc
has its local cache, and uses no farm.

Equal files give equal bytes: names are in order, and each has the same time. Every file that was
not built here has a digest that somebody else published: Python's on the command line, a library's
in the lock file. winget has not been run with the manifest.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hatch_build
from packaging.utils import parse_wheel_filename
from release.dsse import RefusedError
from release.lock import read_lock

from packages.entries import FILE, Entry, checked
from packages.wheels import LOCK, of_extra

IDENTIFIER: Final = "hpcc.hpcc"
# The first with `ArchiveBinariesDependOnPath`: a link to hpcc.exe would find no hpcc-cli.exe.
_MANIFEST_VERSION: Final = "1.9.0"
_MAX_PYTHON_BYTES: Final = 128 << 20
_TARGET: Final = "win_amd64"
_PATHS: Final = re.compile(r"python(3)(\d+)\._pth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What goes into the zip; `epoch` is the time of every file. `url` is for winget only."""

    root: Path
    wheel: Path
    python: Path
    python_sha256: str
    epoch: int
    libraries: Path | None = None
    url: str = ""

    @property
    def version(self) -> str:
        """Return hpcc's version.

        Raises:
            RefusedError: it is not a wheel for Windows.
        """
        try:
            name, version, _, tags = parse_wheel_filename(self.wheel.name)
        except ValueError as error:
            raise RefusedError(f"{self.wheel} is not a wheel") from error
        if name != "hpcc" or {tag.platform for tag in tags} != {_TARGET}:
            raise RefusedError(
                f"{self.wheel.name} is not for Windows: HPCC_TARGET={_TARGET} python -m hatchling "
                "build -t wheel"
            )
        return str(version)


def build(archive: Archive, out: Path) -> list[Path]:
    """Write the zip and, with a URL, winget's three files; return all.

    Raises:
        RefusedError: a file has another digest, or is for another system.
    """
    version = archive.version
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"hpcc-{version}-windows-x64.zip"
    entries = checked(_entries(archive))
    moment = time.gmtime(max(archive.epoch, 315_532_800))[:6]  # zip begins in 1980
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, moment)
            info.create_system, info.external_attr = 0, 0x20  # Windows: an ordinary file
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, entry.content or b"")
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if not archive.url:
        return [target]
    written = [target]
    for name, text in manifest(version, archive.url, digest, moment).items():
        path = out / name
        path.write_text(text, encoding="utf-8", newline="\r\n")
        written.append(path)
    return written


def _entries(archive: Archive) -> Iterator[Entry]:
    number = ""
    for entry in _python(archive):
        found = _PATHS.fullmatch(entry.name)
        if found is None:
            yield entry
            continue
        number = found[2]
        yield Entry(entry.name, f"python3{number}.zip\n.\nlib\n".encode())
    if not number:
        raise RefusedError(f"{archive.python.name} is no embeddable distribution of CPython")
    yield from _own(archive)
    yield from _libraries(archive, number)
    with tempfile.TemporaryDirectory(prefix="hpcc-packages-") as scratch:
        program = Path(scratch, "hpcc-cli.exe")
        hatch_build.build_windows_cli(archive.root, program)
        yield Entry("hpcc-cli.exe", program.read_bytes())
    yield Entry("LICENSE", (archive.root / "LICENSE").read_bytes())


def _python(archive: Archive) -> Iterator[Entry]:
    data = archive.python.read_bytes()
    if hashlib.sha256(data).hexdigest() != archive.python_sha256.lower():
        raise RefusedError(f"{archive.python.name} has another digest than --sha256")
    with zipfile.ZipFile(archive.python) as python:
        if sum(info.file_size for info in python.infolist()) > _MAX_PYTHON_BYTES:
            raise RefusedError(f"{archive.python.name} is too large")
        for info in python.infolist():
            if not info.is_dir():
                name = "LICENSE-python.txt" if info.filename == "LICENSE.txt" else info.filename
                yield Entry(name, python.read(info), FILE)


def _own(archive: Archive) -> Iterator[Entry]:
    with zipfile.ZipFile(archive.wheel) as wheel:
        for info in wheel.infolist():
            top, _, rest = info.filename.partition("/")
            if top.endswith(".data"):
                if rest.startswith("scripts/"):
                    yield Entry(rest.removeprefix("scripts/"), wheel.read(info))
            elif not info.is_dir():
                yield Entry(f"lib/{info.filename}", wheel.read(info))


def _libraries(archive: Archive, number: str) -> Iterator[Entry]:
    if archive.libraries is None:
        return
    lock = (archive.root / LOCK).read_text(encoding="utf-8")
    project = (archive.root / "pyproject.toml").read_text(encoding="utf-8")
    missing = of_extra("client", project, lock)
    pins = {pin.name: pin for pin in read_lock(lock)}
    for path in sorted(archive.libraries.iterdir()):
        try:
            name, _, _, tags = parse_wheel_filename(path.name)
        except ValueError as error:
            raise RefusedError(f"{path} is not a wheel") from error
        if name not in missing:
            continue
        fits = any(
            tag.platform in {"any", _TARGET}
            and (tag.abi == "abi3" or tag.interpreter in {"py3", f"cp3{number}"})
            for tag in tags
        )
        if not fits or hashlib.sha256(path.read_bytes()).hexdigest() not in pins[name].digests:
            raise RefusedError(f"{path.name} is not the wheel for this Python in {LOCK}")
        missing.discard(name)
        with zipfile.ZipFile(path) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield Entry(f"lib/{info.filename}", wheel.read(info))
    if missing:
        raise RefusedError(f"{archive.libraries} has no wheel of {', '.join(sorted(missing))}")


def manifest(version: str, url: str, digest: str, moment: tuple[int, ...]) -> dict[str, str]:
    """Return winget's three files by name ("Create your package manifest", manifest 1.9)."""
    if not re.fullmatch(r"https://[!-~]+", url) or '"' in url:
        raise RefusedError(f"not an https URL: {url!r}")
    head = f"PackageIdentifier: {IDENTIFIER}\nPackageVersion: {version}\n"
    foot = f"ManifestVersion: {_MANIFEST_VERSION}\n"
    installer = (
        f"{head}InstallerType: zip\n"
        "NestedInstallerType: portable\n"
        "NestedInstallerFiles:\n"
        "- RelativeFilePath: hpcc.exe\n"
        "  PortableCommandAlias: hpcc\n"
        "ArchiveBinariesDependOnPath: true\n"
        f"ReleaseDate: {moment[0]:04}-{moment[1]:02}-{moment[2]:02}\n"
        "Installers:\n"
        "- Architecture: x64\n"
        f'  InstallerUrl: "{url}"\n'
        f"  InstallerSha256: {digest.upper()}\n"
        f"ManifestType: installer\n{foot}"
    )
    locale = (
        f"{head}PackageLocale: en-US\n"
        "Publisher: The hpcc authors\n"
        "PackageName: hpcc\n"
        "License: Apache-2.0\n"
        "ShortDescription: A distributed compiler cache.\n"
        f"ManifestType: defaultLocale\n{foot}"
    )
    return {
        f"{IDENTIFIER}.yaml": f"{head}DefaultLocale: en-US\nManifestType: version\n{foot}",
        f"{IDENTIFIER}.installer.yaml": installer,
        f"{IDENTIFIER}.locale.en-US.yaml": locale,
    }
