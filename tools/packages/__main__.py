"""The command of tools/packages; `make help` lists the target that runs it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from release.dsse import RefusedError

from packages import deb, rpm, wheels, windows
from packages.build import Request
from packages.entries import EntryError
from packages.layout import Source
from packages.table import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"deb": deb.build, "rpm": rpm.build}


def build(arguments: argparse.Namespace) -> int:
    """Build the named packages of the named kinds, or all."""
    root = arguments.root
    libraries = arguments.libraries or wheels.default_directory((root / wheels.LOCK).read_text())
    source = Source(root=root, wheel=arguments.wheel, libraries=libraries, epoch=arguments.epoch)
    version = arguments.wheel.name.split("-")[1]
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = [p for p in PACKAGES if p.name in (arguments.package or [p.name])]
    if any(package.extra for package in wanted):
        wheels.fetch(root, libraries)
    for package in wanted:
        for kind in arguments.kind or KINDS:
            request = Request(
                package=package,
                source=source,
                version=version,
                out=arguments.out,
                revision=arguments.revision,
            )
            made = KINDS[kind](request)
            print(f"packages: {made.name}, {made.stat().st_size >> 10} KiB")
    return 0


def fetch(arguments: argparse.Namespace) -> int:
    """Download the wheels of the lock file, unless they are there; print where."""
    lock = (arguments.root / wheels.LOCK).read_text()
    directory = arguments.libraries or wheels.default_directory(lock)
    wheels.fetch(arguments.root, directory)
    print(directory)
    return 0


def archive(arguments: argparse.Namespace) -> int:
    """Build the archive for Windows and winget's manifest."""
    made = windows.Archive(
        root=arguments.root,
        wheel=arguments.wheel,
        python=arguments.python,
        python_sha256=arguments.sha256,
        libraries=arguments.libraries,
        epoch=arguments.epoch,
        url=arguments.url,
    )
    for path in windows.build(made, arguments.out):
        print(f"packages: {path.name}, {path.stat().st_size >> 10} KiB")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the commands."""
    top = argparse.ArgumentParser(prog="packages", description=__doc__)
    commands = top.add_subparsers(required=True)
    fetched = commands.add_parser("fetch", help="download the wheels of requirements.lock")
    built = commands.add_parser("build", help="build packages from hpcc's wheel")
    packed = commands.add_parser("windows", help="build a zip for Windows, and winget's manifest")
    packed.set_defaults(run=archive)
    packed.add_argument("--python", type=Path, required=True, help="CPython's embeddable zip")
    packed.add_argument("--sha256", required=True, help="of that zip, as python.org has it")
    packed.add_argument("--url", default="", help="where the zip will be, for winget's manifest")
    for command in (built, packed):
        command.add_argument("--wheel", type=Path, required=True, help="hpcc's wheel")
        command.add_argument("--out", type=Path, required=True, help="where the packages go")
        command.add_argument("--epoch", type=int, required=True, help="the time of every file")
    for command in (fetched, built, packed):
        command.add_argument("--root", type=Path, default=ROOT, help="the tree of hpcc")
        command.add_argument("--libraries", type=Path, help="the directory of those wheels")
    fetched.set_defaults(run=fetch)
    built.add_argument("--kind", choices=KINDS, action="append", help="only this kind")
    names = [package.name for package in PACKAGES]
    built.add_argument("--package", choices=names, action="append", help="only this package")
    built.add_argument("--revision", type=int, default=1, help="of the packages of one version")
    built.set_defaults(run=build)
    return top


def main() -> int:
    """Run one command."""
    arguments = parser().parse_args()
    try:
        return int(arguments.run(arguments))
    except (RefusedError, EntryError) as error:
        print(f"packages: refused: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
