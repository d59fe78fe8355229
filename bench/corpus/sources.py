"""Source packages of the distribution, through a private configuration of apt.

The machine's own sources become `deb-src` in that configuration; the machine's files and package
lists stay as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from corpus.listing import Package

# What every build needs, beside a package's own `needs`.
TOOLS: Final = (
    "build-essential", "dpkg-dev", "ccache", "cmake", "meson", "ninja-build", "autoconf",
    "automake", "libtool", "pkgconf", "gettext", "autopoint", "bison", "flex", "gperf",
    "util-linux",
)  # fmt: skip
_ETC: Final = Path("/etc/apt")
_SECONDS: Final = 600


class SourceError(Exception):
    """A source package cannot be fetched or prepared."""


def source_entries(text: str, *, is_deb822: bool) -> str:
    """Turn a file of apt's into one that names sources, without local directories."""
    if is_deb822:
        stanzas = [part for part in re.split(r"\n\s*\n", text) if "Types:" in part]
        kept = [part for part in stanzas if "file:" not in part and "cdrom:" not in part]
        return "\n\n".join(
            re.sub(r"(?m)^Types:.*$", "Types: deb-src", part).strip() for part in kept
        )
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if re.match(r"deb\s", line) and "file:" not in line]
    return "\n".join(re.sub(r"^deb\s", "deb-src ", line) for line in kept)


class Apt:
    """apt-get with private sources, lists and cache in `state`."""

    def __init__(self, state: Path) -> None:
        self._state, self._parts = state, state / "parts"
        self._is_updated = False

    def _prepare(self) -> None:
        if self._is_updated:
            return
        shutil.rmtree(self._parts, ignore_errors=True)
        self._parts.mkdir(parents=True)
        for name in ("lists/partial", "cache/archives/partial"):
            (self._state / name).mkdir(parents=True, exist_ok=True)
        files = [_ETC / "sources.list", *sorted((_ETC / "sources.list.d").glob("*"))]
        for file in files:
            if file.suffix not in {".list", ".sources"} or not file.is_file():
                continue
            text = source_entries(file.read_text(), is_deb822=file.suffix == ".sources")
            if text:
                (self._parts / file.name).write_text(text + "\n")
        self._get("update")
        self._is_updated = True

    def _options(self) -> list[str]:
        options = [
            "Dir::Etc::sourcelist=/dev/null", f"Dir::Etc::sourceparts={self._parts}",
            f"Dir::State::lists={self._state / 'lists'}", f"Dir::Cache={self._state / 'cache'}",
            "APT::Sandbox::User=",
        ]  # fmt: skip
        return [f"-o{option}" for option in options]

    def _get(self, *args: str, cwd: Path | None = None) -> None:
        _run(["apt-get", "-qq", *self._options(), *args], cwd)

    def unpack(self, package: Package, directory: Path) -> None:
        """Unpack the package's source into a directory that does not exist.

        With the distribution's patches, or the upstream archive alone where a mirror that lags
        behind has no more than that.

        Raises:
            SourceError: it cannot be fetched or unpacked.
        """
        self._prepare()
        home = self._state / "sources" / package.name
        home.mkdir(parents=True, exist_ok=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        if not list(home.glob("*.dsc")) and not list(home.glob("*.orig.tar.*")):
            self.fetch(package.name, home)
        if found := sorted(home.glob("*.dsc")):
            command = ["dpkg-source", "--no-check", "-q", "-x", str(found[-1]), str(directory)]
            try:
                _run(command, None)
            except SourceError:
                shutil.rmtree(directory, ignore_errors=True)
            else:
                return
        archives = [f for f in home.glob("*.orig.tar.*") if f.suffix != ".asc"]
        if not archives:
            raise SourceError(f"apt-get source {package.name}: nothing came")
        directory.mkdir()
        _run(["tar", "-xf", str(archives[0]), "--strip-components=1"], directory)

    def fetch(self, name: str, home: Path) -> None:
        """Fetch the newest version that the mirror has; it may lag behind its own index.

        Raises:
            SourceError: the mirror has none.
        """
        for source in (name, *(f"{name}={version}" for version in self._versions(name))):
            for words in (["--download-only"], ["--download-only", "--tar-only"]):
                try:
                    self._get("source", *words, source, cwd=home)
                except SourceError as error:
                    last = error
                else:
                    return
        raise last

    def _versions(self, name: str) -> list[str]:
        """Return the versions of a source package in all suites, the order of apt."""
        command = ["apt-cache", *self._options(), "showsrc", "--only-source", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.findall(r"(?m)^Version: (\S+)$", done.stdout)
        return list(dict.fromkeys(found))


def install(names: Iterable[str]) -> None:
    """Install what is missing of these packages. Nothing is removed or downgraded for it.

    Raises:
        SourceError: something cannot be installed.
    """
    missing = [name for name in dict.fromkeys(names) if not _is_installed(name)]
    if not missing:
        return
    command = ["apt-get", "-qq", "-y", "--no-remove", "--no-install-recommends"]
    command += ["-oDPkg::Lock::Timeout=300", "install", *missing]
    try:
        _run(command, None)
    except SourceError:
        # The machine's lists of packages may be old or empty.
        _run(["apt-get", "-qq", "update"], None)
        _run(command, None)


def _is_installed(name: str) -> bool:
    command = ["dpkg-query", "-W", "-f=${Status}", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.startswith("install ok installed")


def _run(command: list[str], cwd: Path | None) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        # apt's last line does not say which file is missing where.
        why = [line for line in lines if line.startswith("E: ")][:1] or lines[-1:]
        raise SourceError(f"{command[0]} {command[-1]}: {' '.join(why)[:200]}")
