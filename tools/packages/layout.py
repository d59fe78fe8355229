"""What is in each package, as entries."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from release import licences
from release.dsse import RefusedError

from packages import wheels
from packages.entries import DIRECTORY, PRIVATE, PROGRAM, Entry, checked, write
from packages.table import PYTHONS, Package

_LIB: Final = "usr/lib/hpcc"
# The directory of modules that fit each version, from that of one version.
_PATHS: Final = b"../../../python\n"
_ENVIRONMENT: Final = b"home = /usr/bin\ninclude-system-site-packages = false\n"
_CLI: Final = b"""#!/usr/lib/hpcc/bin/python
import sys

from hpcc.cli.main import main

sys.exit(main())
"""
_SHELLS: Final = {
    "deb": {
        "bash": "usr/share/bash-completion/completions/hpcc",
        "zsh": "usr/share/zsh/vendor-completions/_hpcc",
        "fish": "usr/share/fish/vendor_completions.d/hpcc.fish",
    },
    "rpm": {
        "bash": "usr/share/bash-completion/completions/hpcc",
        "zsh": "usr/share/zsh/site-functions/_hpcc",
        "fish": "usr/share/fish/vendor_completions.d/hpcc.fish",
    },
}
# Where the units of a checkout look for hpcc, for operators who install it with pip.
_OF_PIP: Final = "/opt/hpcc/bin/"
_OF_PACKAGES: Final = "/usr/lib/hpcc/bin/"
_ROWS: Final = "tools/release/licences.tsv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A tree of hpcc, the wheel that was built of it, and the wheels of the lock file.

    `epoch` is the time of every file, in seconds.
    """

    root: Path
    wheel: Path
    libraries: Path
    epoch: int

    def text(self, name: str) -> str:
        """Return a file of the tree."""
        return (self.root / name).read_text(encoding="utf-8")


def entries(package: Package, source: Source, kind: str) -> list[Entry]:
    """Return what the package of this kind (`deb` or `rpm`) contains, by name."""
    found = [*_documents(package, source, kind)]
    if package.service:
        found += _service(package.service, source)
    elif package.extra:
        found += _libraries(package.extra, source, kind)
    else:
        found += _base(source, kind)
    return checked(found)


def _base(source: Source, kind: str) -> Iterator[Entry]:
    own = [*wheels.own(source.wheel, kind)]
    yield from own
    yield Entry(f"{_LIB}/pyvenv.cfg", _ENVIRONMENT)
    yield Entry(f"{_LIB}/bin/python", target="/usr/bin/python3")
    yield Entry(f"{_LIB}/bin/hpcc-cli", _CLI, PROGRAM)
    yield Entry("usr/bin/hpcc", target="../lib/hpcc/bin/hpcc")
    for version in PYTHONS:
        yield Entry(f"{_LIB}/lib/python{version}/site-packages/hpcc.pth", _PATHS)
    page = source.text("docs/man/hpcc.1").encode()
    yield Entry("usr/share/man/man1/hpcc.1.gz", packed(page))
    for shell, script in completions(own, source.epoch).items():
        yield Entry(_SHELLS[kind][shell], script)


def completions(own: list[Entry], epoch: int) -> dict[str, bytes]:
    """Return the completion of each shell, as the packaged hpcc prints it."""
    with tempfile.TemporaryDirectory(prefix="hpcc-packages-") as scratch:
        place = Path(scratch, "root")
        modules = [entry for entry in own if entry.name.startswith(wheels.ANY)]
        write(modules, place, epoch)
        code = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        code += "from hpcc.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-I", "-S", "-B", "-c", code, str(place / wheels.ANY)]
        found = {}
        for shell in _SHELLS["deb"]:
            done = subprocess.run([*command, "completion", shell], capture_output=True, check=False)
            if done.returncode != 0:
                problem = done.stderr.decode(errors="replace")[-2000:]
                raise RefusedError(f"hpcc completion {shell} failed:\n{problem}")
            found[shell] = done.stdout
    return found


def _libraries(extra: str, source: Source, kind: str) -> Iterator[Entry]:
    lock = source.text(wheels.LOCK)
    wanted = wheels.of_extra(extra, source.text("pyproject.toml"), lock)
    found = [wheel for wheel in wheels.read(source.libraries, lock) if wheel.name in wanted]
    yield from wheels.unpacked(found, kind)


def _service(name: str, source: Source) -> Iterator[Entry]:
    deploy = source.root / "deploy"
    units = [f"hpcc-{name}.service"]
    if name == "worker":
        units += ["hpcc-helper.service", "hpcc-helper.socket"]
        drop_in = (deploy / "systemd/hpcc-worker-root.conf").read_bytes()
        yield Entry("usr/share/hpcc-worker/root.conf", drop_in)
    for unit in units:
        text = source.text(f"deploy/systemd/{unit}")
        yield Entry(f"usr/lib/systemd/system/{unit}", text.replace(_OF_PIP, _OF_PACKAGES).encode())
    for kind in ("sysusers", "tmpfiles"):
        lines = part_of(source.text(f"deploy/systemd/hpcc.{kind}"), name)
        yield Entry(f"usr/lib/{kind}.d/hpcc-{name}.conf", lines.encode())
    user = f"hpcc-{name}"
    yield Entry("etc/hpcc", mode=DIRECTORY)
    yield Entry(f"etc/hpcc/{name}", mode=0o700, user=user)
    template = (deploy / f"packages/{name}.json").read_bytes()
    config = f"etc/hpcc/{name}/{name}.json"
    yield Entry(config, template, PRIVATE, is_config=True, user=user)


def part_of(text: str, name: str) -> str:
    """Return the lines of a file of sysusers.d or tmpfiles.d that this service needs."""
    wanted = re.compile(rf"\bhpcc-{name}\b|^d /etc/hpcc +0755 ")
    lines = [line for line in text.splitlines() if not line.startswith("#") and wanted.search(line)]
    return "".join(f"{line}\n" for line in lines)


def _documents(package: Package, source: Source, kind: str) -> Iterator[Entry]:
    place = f"usr/share/doc/{package.name}"
    if kind == "deb":
        yield Entry(f"{place}/copyright", copyright_of(package, source).encode())
        yield Entry(f"{place}/changelog.gz", packed(source.text("CHANGELOG.md").encode()))
    else:
        yield Entry(f"usr/share/licenses/{package.name}/LICENSE", source.text("LICENSE").encode())


def rows(package: Package, source: Source) -> list[licences.Row]:
    """Return the row of licences.tsv for each library in the package."""
    if not package.extra:
        return []
    project, lock = source.text("pyproject.toml"), source.text(wheels.LOCK)
    known = licences.read_rows(source.text(_ROWS))
    return [known[name] for name in sorted(wheels.of_extra(package.extra, project, lock))]


def copyright_of(package: Package, source: Source) -> str:
    """Return Debian's file about licences: hpcc's, and of each library where its own texts are."""
    lines = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        "Upstream-Name: hpcc",
        "",
        "Files: *",
        "Copyright: The hpcc authors",
        "License: Apache-2.0",
        " On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.",
    ]
    for row in rows(package, source):
        lines += [
            "",
            f"Files: usr/lib/hpcc/*/{row.name.replace('-', '_')}-{row.version}.dist-info/*",
            f"Comment: {row.name} {row.version}, as its makers distribute it",
            "Copyright: see the files in this directory",
            f"License: {row.expression}",
            " The text is in this directory.",
        ]
    return "\n".join(lines) + "\n"


def packed(content: bytes) -> bytes:
    """Return the same with gzip, without a time or a name."""
    return gzip.compress(content, 9, mtime=0)
