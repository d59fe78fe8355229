"""The open list of packages, and the rows in which hpcc must not give a hit that ccache gives."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

LIST: Final = Path(__file__).resolve().parent / "packages.toml"
SYSTEMS: Final = ("autotools", "cmake", "make", "meson")
LANGUAGES: Final = ("c", "c++")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.+-]+")


class ListError(Exception):
    """The list of packages is malformed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One source package. `options` go to configure, cmake, meson or make; `subdir` is built."""

    name: str
    system: str
    language: str
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    subdir: str = "."
    in_tree: bool = False
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Excuse:
    """A row in which hpcc may hit less than ccache; `why` says what content keys forbid there."""

    package: str
    scenario: str
    why: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """The whole list."""

    packages: tuple[Package, ...]
    excuses: tuple[Excuse, ...] = field(default=())

    def excuse(self, package: str, scenario: str) -> Excuse | None:
        """Return the excuse for missing hits in a row; None without one."""
        for excuse in self.excuses:
            if excuse.package in {package, "*"} and excuse.scenario == scenario:
                return excuse
        return None

    def chosen(self, names: str, limit: int) -> tuple[Package, ...]:
        """Return the packages with these comma-separated names, or all; at most `limit` if > 0.

        Raises:
            ListError: a name is not in the list.
        """
        wanted = [name for name in names.split(",") if name]
        known = {package.name: package for package in self.packages}
        if unknown := [name for name in wanted if name not in known]:
            raise ListError(f"not in {LIST.name}: {', '.join(unknown)}")
        chosen = tuple(known[name] for name in wanted) if wanted else self.packages
        return chosen[:limit] if limit > 0 else chosen


def load(path: Path = LIST) -> Corpus:
    """Read the list.

    Raises:
        ListError: it is malformed.
    """
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> Corpus:
    """Return the list that a TOML text holds.

    Raises:
        ListError: it is malformed.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ListError(f"not TOML: {error}") from error
    packages = tuple(_package(row) for row in table.get("package", []))
    names = [package.name for package in packages]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ListError(f"listed twice: {', '.join(twice)}")
    return Corpus(packages, tuple(_excuse(row) for row in table.get("excuse", [])))


def _package(row: dict[str, Any]) -> Package:
    lists = ("needs", "options", "before")
    words = {key: tuple(value) if key in lists else value for key, value in row.items()}
    try:
        package = Package(**words)
    except TypeError as error:
        raise ListError(f"{row.get('name', '?')}: {error}") from error
    if not _NAME.fullmatch(package.name):
        raise ListError(f"{package.name!r} is not the name of a source package")
    if package.system not in SYSTEMS or package.language not in LANGUAGES:
        raise ListError(f"{package.name}: system of {SYSTEMS}, language of {LANGUAGES}")
    if Path(package.subdir).is_absolute() or ".." in Path(package.subdir).parts:
        raise ListError(f"{package.name}: subdir leaves the tree")
    return package


def _excuse(row: dict[str, Any]) -> Excuse:
    try:
        excuse = Excuse(**row)
    except TypeError as error:
        raise ListError(f"excuse of {row.get('package', '?')}: {error}") from error
    if not excuse.why:
        raise ListError(f"excuse of {excuse.package}: it must say why")
    return excuse
