"""RPM packages, by rpmbuild from a spec without a build: the entries are there already."""

from __future__ import annotations

import platform
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from packages import layout, scripts
from packages.build import Request, newest_glibc, run
from packages.entries import Entry, write

_MACROS: Final = {
    # Nothing of the machine or the time.
    "_buildhost": "hpcc",
    "build_mtime_policy": "clamp_to_source_date_epoch",
    "clamp_mtime_to_source_date_epoch": "1",
    "use_source_date_epoch_as_buildtime": "1",
    "source_date_epoch_from_changelog": "0",
    # Entries are packed as they are: no stripping, no bytecode of this machine's Python.
    "__os_install_post": "%{nil}",
    "__spec_install_pre": "%{___build_pre}",
    "debug_package": "%{nil}",
    "_build_id_links": "none",
    "_binary_payload": "w12.zstdio",
    "_docdir_fmt": "%%{NAME}",
}


def build(request: Request) -> Path:
    """Build one package; return its file.

    Raises:
        RefusedError: rpmbuild is missing or fails, or the package cannot be made of this source.
    """
    package, epoch = request.package, request.source.epoch
    entries = layout.entries(package, request.source, "rpm")
    machine = "noarch" if package.is_for_any_machine else platform.machine()
    target = request.out / f"{package.name}-{request.full}.{machine}.rpm"
    with tempfile.TemporaryDirectory(prefix="hpcc-packages-") as scratch:
        top = Path(scratch)
        write(entries, top / "entries", epoch)
        spec = top / f"{package.name}.spec"
        spec.write_text(_spec(request, entries, top / "entries"))
        macros = {**_MACROS, "_topdir": str(top / "top"), "_rpmdir": str(top / "made")}
        macros["_rpmfilename"] = target.name
        defined = [
            word for name, value in macros.items() for word in ("--define", f"{name} {value}")
        ]
        run(["rpmbuild", "-bb", "--target", machine, *defined, spec], epoch)
        (top / "made" / target.name).replace(target)
    return target


def _spec(request: Request, entries: Sequence[Entry], place: Path) -> str:
    package, source = request.package, request.source
    licences = {"Apache-2.0", *(_whole(row.expression) for row in layout.rows(package, source))}
    lines = [
        f"Name: {package.name}",
        f"Version: {request.upstream}",
        f"Release: {request.revision}",
        f"Summary: {package.summary}",
        f"License: {' AND '.join(sorted(licences))}",
        # Private libraries: they are nobody else's dependency, and what they need is named.
        "AutoReqProv: no",
        "Requires: /bin/sh",
        *(f"Requires: {name} = {request.full}" for name in package.needs),
        *(f"{field}: {value}" for field, value in package.rpm),
    ]
    if newest := newest_glibc(entries):
        lines.append(f"Requires: libc.so.6(GLIBC_2.{newest})(64bit)")
    lines += ["", "%description", *textwrap.wrap(package.text, 76), "", "%install"]
    lines += ["mkdir -p %{buildroot}", f"cp -a {place}/. %{{buildroot}}/"]
    for section, text in scripts.of_rpm(package, source).items():
        lines += ["", section, text.replace("%", "%%")]
    lines += ["", "%files", *_files(entries)]
    return "\n".join(lines) + "\n"


def _whole(expression: str) -> str:
    return f"({expression})" if " OR " in expression else expression


def _files(entries: Sequence[Entry]) -> Iterator[str]:
    named = {entry.name for entry in entries}
    parents = {str(parent) for name in named for parent in PurePosixPath(name).parents}
    for name in sorted(parents - named):
        if name.startswith("usr/lib/hpcc"):
            yield f'%dir %attr(0755,root,root) "/{name}"'
    for entry in entries:
        marks = "%config(noreplace) " if entry.is_config else ""
        if entry.content is None and not entry.target:
            marks = "%dir "
        mode = "-" if entry.target else f"{entry.mode:04o}"
        yield f'{marks}%attr({mode},{entry.user},{entry.user}) "/{entry.name}"'
