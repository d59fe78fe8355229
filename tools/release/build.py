"""Builds wheel, source archive and packages of one commit, and compares builds byte for byte."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packages import wheels

from release.dsse import RefusedError

# What a release has besides descriptions of it.
ENDINGS: Final = (".whl", ".tar.gz", ".deb", ".rpm")
# Two builds differ in all that must not matter: umask, time zone, language, hash seed, directory.
SURROUNDINGS: Final = (
    ("first", {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"}, 0o022),
    ("second/of-two-builds", {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "2"}, 0o077),
)


def git(root: Path, *arguments: str) -> bytes:
    """Return what git prints.

    Raises:
        RefusedError: git fails.
    """
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        problem = done.stderr.decode(errors="replace").strip()
        raise RefusedError(f"git {arguments[0]}: {problem}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Source:
    """A commit of this repository: its id, its time in seconds, and hpcc's version in it."""

    root: Path
    commit: str
    epoch: int
    version: str

    def read(self, name: str) -> bytes:
        """Return a file of the commit."""
        return git(self.root, "show", f"{self.commit}:{name}")


def source(root: Path, revision: str) -> Source:
    """Return the commit that a revision names.

    Raises:
        RefusedError: it is not here, or its two places for the version differ.
    """
    asked = ("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    commit = git(root, *asked).decode().strip()
    epoch = int(git(root, "show", "-s", "--format=%ct", commit))
    found = Source(root, commit, epoch, "")
    version = tomllib.loads(found.read("pyproject.toml").decode())["project"]["version"]
    if f'__version__: Final = "{version}"\n' not in found.read("src/hpcc/__init__.py").decode():
        raise RefusedError(f"pyproject.toml has version {version}, src/hpcc/__init__.py another")
    if not re.fullmatch(r"[0-9A-Za-z.+-]{1,64}", version):
        raise RefusedError(f"no version for file names: {version!r}")
    return Source(root, commit, epoch, version)


def export(origin: Source, target: Path) -> None:
    """Write the commit's files, and nothing else, below a new directory."""
    target.mkdir(parents=True)
    packed = subprocess.Popen(
        ["git", "-C", str(origin.root), "archive", "--format=tar", origin.commit],
        stdout=subprocess.PIPE,
    )
    assert packed.stdout
    with packed.stdout, tarfile.open(fileobj=packed.stdout, mode="r|") as archive:
        archive.extractall(target, filter="data")
    if packed.wait() != 0:
        raise RefusedError("git archive failed")


def build(origin: Source, place: Path, env: Mapping[str, str], mask: int) -> list[Path]:
    """Export the commit to `place`, build there, and return the files that were built.

    The libraries in the packages are fetched before, because they are the same in each build.

    Raises:
        RefusedError: the build fails, or a library cannot be fetched.
    """
    tree, home = place / "source", place / "home"
    export(origin, tree)
    home.mkdir()
    libraries = wheels.default_directory(origin.read(wheels.LOCK).decode())
    wheels.fetch(tree, libraries)
    clean = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "SOURCE_DATE_EPOCH": str(origin.epoch),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tree / "tools"),
        **env,
    }
    dist = tree / "dist"

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tree,
            env=clean,
            umask=mask,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            problem = done.stderr.decode(errors="replace")[-4000:]
            raise RefusedError(f"the build failed:\n{problem}")

    run("hatchling", "build")
    (wheel,) = dist.glob("*.whl")
    options = ("--wheel", wheel, "--libraries", libraries, "--epoch", str(origin.epoch))
    run("packages", "build", *options, "--out", dist)
    return sorted(dist.iterdir())


def members(file: Path) -> dict[str, bytes]:
    """Return the content of each file in a wheel or source archive."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(file) as archive:
        opened = ((m.name, archive.extractfile(m)) for m in archive.getmembers())
        return {name: stream.read() for name, stream in opened if stream}


def compare(first: Sequence[Path], second: Sequence[Path]) -> None:
    """Compare the files of two builds.

    Raises:
        RefusedError: a file is missing or has other bytes; the message names what differs.
    """
    if [file.name for file in first] != [file.name for file in second]:
        raise RefusedError(
            f"one build has {[f.name for f in first]}, one {[f.name for f in second]}"
        )
    for one, other in zip(first, second, strict=True):
        if one.read_bytes() != other.read_bytes():
            raise RefusedError(f"{one.name} is not reproducible: {_difference(one, other)}")


def _difference(one: Path, other: Path) -> str:
    try:
        ours, theirs = members(one), members(other)
    except (OSError, tarfile.TarError, zipfile.BadZipFile):
        return "other bytes, and one is no archive"
    names = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    return f"differs in {', '.join(names[:10])}" if names else "the same members, other headers"
