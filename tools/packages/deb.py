"""Debian packages, by dpkg-deb, which every Debian has."""

from __future__ import annotations

import hashlib
import platform
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from packages import layout, scripts
from packages.build import Request, newest_glibc, run
from packages.entries import PROGRAM, Entry, write
from packages.table import MAINTAINER

_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
# Half of xz's time and two per cent larger; dpkg reads it since Debian 12 and Ubuntu 22.04.
_COMPRESSION: Final = ("-Zzstd", "-z12")


def build(request: Request) -> Path:
    """Build one package; return its file.

    Raises:
        RefusedError: dpkg-deb is missing or fails, or the package cannot be made of this source.
    """
    package = request.package
    entries = layout.entries(package, request.source, "deb")
    machine = "all" if package.is_for_any_machine else _MACHINES[platform.machine()]
    target = request.out / f"{package.name}_{request.full}_{machine}.deb"
    with tempfile.TemporaryDirectory(prefix="hpcc-packages-") as scratch:
        root = Path(scratch, "root")
        write([*entries, *_control(request, entries, machine)], root, request.source.epoch)
        made = Path(scratch, target.name)
        options = ("--root-owner-group", "--uniform-compression", *_COMPRESSION)
        run(["dpkg-deb", *options, "--build", root, made], request.source.epoch)
        made.replace(target)
    return target


def _control(request: Request, entries: Sequence[Entry], machine: str) -> list[Entry]:
    package, source = request.package, request.source
    files = [entry for entry in entries if entry.content is not None]
    digests = "".join(
        f"{hashlib.md5(entry.content or b'', usedforsecurity=False).hexdigest()}  {entry.name}\n"
        for entry in files
    )
    texts = {
        "control": _fields(request, entries, machine),
        "conffiles": "".join(f"/{entry.name}\n" for entry in files if entry.is_config),
        "md5sums": digests,
        "triggers": scripts.triggers_of_deb(package),
    }
    made = [Entry(f"DEBIAN/{name}", text.encode()) for name, text in texts.items() if text]
    for name, text in scripts.of_deb(package, source).items():
        made.append(Entry(f"DEBIAN/{name}", text.encode(), PROGRAM))
    return made


def _fields(request: Request, entries: Sequence[Entry], machine: str) -> str:
    package = request.package
    relations: dict[str, list[str]] = {"Depends": []}
    for name in package.needs:
        relations["Depends"].append(f"{name} (= {request.full})")
    if newest := newest_glibc(entries):
        relations["Depends"].append(f"libc6 (>= 2.{newest})")
    for field, value in package.deb:
        relations.setdefault(field, []).append(value)
    kibibytes = sum(-(-len(entry.content or b"") // 1024) for entry in entries)
    fields = {
        "Package": package.name,
        "Version": request.full,
        "Architecture": machine,
        "Maintainer": MAINTAINER,
        "Installed-Size": str(kibibytes),
        **{field: ", ".join(values) for field, values in relations.items() if values},
        "Section": "devel",
        "Priority": "optional",
        "Description": "\n".join([package.summary, *textwrap.wrap(package.text, 76)]),
    }
    lines = (f"{name}: {value}".replace("\n", "\n ") for name, value in fields.items())
    return "".join(f"{line}\n" for line in lines)
