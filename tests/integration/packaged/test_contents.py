"""Each file of the packages, its mode and its owner, and that two builds give the same bytes."""

from __future__ import annotations

import io
import re
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc_testkit.packages.built import SMALL, Builder

pytestmark = pytest.mark.timeout(600)

_MODULES = "/usr/lib/hpcc/python/"
_LIST = Path(__file__).with_name("contents.txt")
# Mode, user, group, flags, name and target.
_TAGS = (
    "FILEMODES:octal",
    "FILEUSERNAME",
    "FILEGROUPNAME",
    "FILEFLAGS:fflags",
    "FILENAMES",
    "FILELINKTOS",
)
_FORMAT = "[" + "|".join(f"%{{{tag}}}" for tag in _TAGS) + r"\n]"


def of_deb(package: Path) -> list[str]:
    """Return a line for each file, link and unusual directory of a Debian package."""
    packed = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True
    )
    configs = subprocess.run(
        ["dpkg-deb", "-I", package, "conffiles"], capture_output=True, text=True, check=False
    ).stdout.split()
    found = []
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        for member in archive:
            name = member.name.removeprefix(".")
            if member.isdir() and member.mode == 0o755:
                continue
            assert (member.uname, member.gname) == ("root", "root"), name
            mode = "link" if member.issym() else f"{member.mode:04o}"
            link = f" -> {member.linkname}" if member.issym() else ""
            mark = " config" if name in configs else ""
            found.append(f"{mode} root {name}{link}{mark}")
    return sorted(found, key=lambda line: line.split()[2])


def of_rpm(package: Path) -> list[str]:
    """Return the same of an RPM package."""
    asked = ["rpm", "-qp", "--nosignature", "--queryformat", _FORMAT, package]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    found = []
    for line in said.splitlines():
        mode, user, group, flags, name, target = line.split("|")
        assert user == group, line
        kind = int(mode, 8)
        if stat.S_ISDIR(kind) and stat.S_IMODE(kind) == 0o755:
            continue
        shown = "link" if stat.S_ISLNK(kind) else f"{stat.S_IMODE(kind):04o}"
        link = f" -> {target}" if target else ""
        # "c" is a configuration file, "n" says that an upgrade does not replace it.
        mark = " config" if {"c", "n"} <= {*flags} else ""
        found.append(f"{shown} {user} {name}{link}{mark}")
    return sorted(found, key=lambda line: line.split()[2])


def wanted(kind: str, name: str) -> list[str]:
    sections = re.split(r"^\[(.*)\]\n", _LIST.read_text(), flags=re.MULTILINE)
    by_title = dict(zip(sections[1::2], sections[2::2], strict=True))
    return by_title[f"{kind} {name}"].splitlines()


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_a_package_has_exactly_the_listed_files_and_two_builds_the_same_bytes(
    small: Callable[[str], list[Path]], builder: Builder, tmp_path: Path, kind: str
) -> None:
    again = builder.build(tmp_path, kind, SMALL)
    for name, package, other in zip(SMALL, small(kind), again, strict=True):
        assert package.read_bytes() == other.read_bytes(), package.name
        lines = {"deb": of_deb, "rpm": of_rpm}[kind](package)
        modules = [line for line in lines if _MODULES in line]
        assert [line for line in lines if line not in modules] == wanted(kind, name)
        assert modules == (_modules_of(builder.wheel) if name == "hpcc" else [])


def _modules_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".data/" not in name]
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    names.append(metadata.replace("METADATA", "INSTALLER"))
    return [f"0644 root {_MODULES}{name}" for name in sorted(names)]
