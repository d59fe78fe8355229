"""The extras of the package: what each adds, whether it is installed, how to add it or hpcc anew.

Problem: the local cache needs the standard library only, a client needs gRPC and signatures, and a
worker needs more. Who installed less must read which command adds the rest, and never a traceback.

Rule: `pip install hpcc` brings no other package. Modules of an extra are imported late, behind the
commands and settings that need them. The command line asks `require_extra` before it runs such a
command, and the daemon asks `why_missing` before it uses a farm or a remote cache.

What must never happen: a compile fails because an extra is missing.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import hpcc
from hpcc.core import CallerError

Extra = Literal["client", "farm", "otlp", "parquet"]
NO_EXTRA: Final = "no-extra"
"""The reason of the error for a missing extra."""
# By the names under which Python imports what pyproject.toml names.
MODULES: Final[Mapping[Extra, tuple[str, ...]]] = {
    "client": (
        "buildgrid.common",
        "cryptography",
        "google.protobuf",
        "grpc",
        "httpx",
        "jwt",
        "obstore",
        "zstandard",
    ),
    "farm": ("asyncpg", "grpclib", "h2", "rich"),
    # OTLP needs the standard library only (docs/adr/0112-otlp.md): the name may be asked for.
    "otlp": (),
    "parquet": ("arro3.core", "arro3.io"),
}
# The extras that are packages of a distribution, and the command that adds one, by what the package
# writes as its installer (PEP 376).
_PACKAGED: Final[frozenset[Extra]] = frozenset({"client", "farm"})
_PACKAGERS: Final[Mapping[str, tuple[str, ...]]] = {
    "deb": ("apt-get", "install"),
    "rpm": ("dnf", "install"),
}
_REINSTALLERS: Final[Mapping[str, tuple[str, ...]]] = {
    "deb": ("apt-get", "install", "--reinstall"),
    "rpm": ("dnf", "reinstall"),
}
# What an extra contains besides its own modules.
_INCLUDES: Final[Mapping[Extra, tuple[Extra, ...]]] = {"farm": ("client",)}
_MAX_METADATA_BYTES: Final = 1 << 20
_MAX_INSTALLER_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Installation:
    """Where this hpcc is installed, as far as it decides which command adds packages to it.

    `pipx_name` is the name of pipx's environment, empty without pipx. `checkout` is the directory
    that hpcc was installed from (PEP 610), empty if it was a wheel or an index. `packager` is `deb`
    or `rpm` if hpcc is a package of the distribution's package manager, else empty.
    """

    python: str
    is_environment: bool
    has_pip: bool
    is_managed: bool
    pipx_name: str = ""
    checkout: str = ""
    is_editable: bool = False
    packager: str = ""


def this_installation() -> Installation:
    """Return the installation of the running interpreter."""
    prefix = Path(sys.prefix)
    marker = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    return Installation(
        python=sys.executable,
        is_environment=sys.prefix != sys.base_prefix,
        has_pip=_is_there("pip"),
        is_managed=marker.is_file(),
        pipx_name=prefix.name if _is_pipx(prefix / "pipx_metadata.json") else "",
        packager=_packager(),
    )


def missing_modules(extra: Extra) -> tuple[str, ...]:
    """Return the modules of an extra that cannot be imported here; empty if it is installed."""
    wanted = [*MODULES[extra]]
    for included in _INCLUDES.get(extra, ()):
        wanted += MODULES[included]
    return tuple(name for name in wanted if not _is_there(name))


def why_missing(extra: Extra, what: str) -> str:
    """Return that `what` needs an extra, with the command that adds it; empty if it is there."""
    return missing_text(extra, what) if missing_modules(extra) else ""


class WhyNoClient:
    """Answers `why_missing` for the client, once for all when it is installed.

    A daemon without it looks again at each compile, so that an installation needs no restart.
    """

    def __init__(self, what: str) -> None:
        self._what, self._is_there = what, False

    def __call__(self) -> str:
        trouble = "" if self._is_there else why_missing("client", self._what)
        self._is_there = not trouble
        return trouble


def require_extra(extra: Extra, what: str) -> None:
    """Refuse to go on without an extra.

    Raises:
        CallerError: it is not installed (reason `no-extra`).
    """
    if trouble := why_missing(extra, what):
        raise CallerError(trouble, reason=NO_EXTRA)


def missing_text(extra: Extra, what: str) -> str:
    """Return the sentence for a missing extra."""
    return f"{what} needs hpcc[{extra}], which is not installed; add it with {adding(extra)}"


def extra_of(module: str) -> Extra | None:
    """Return the extra that brings a module; None for a module of no extra."""
    for extra, names in MODULES.items():
        if any(module == name or name.startswith(f"{module}.") for name in names):
            return extra
        if any(module.startswith(f"{name}.") for name in names):
            return extra
    return None


def adding(extra: Extra, where: Installation | None = None) -> str:
    """Return the command that adds an extra to an installation, in backquotes.

    pip takes hpcc itself from what is installed, so that the command works wherever it came from. A
    Python that its distribution manages (PEP 668) gets no packages: the answer is then two commands
    that install hpcc anew, one with a virtual environment and one with pipx. An hpcc that is a
    distribution's package gets another package.
    """
    place, wanted = where or this_installation(), f"hpcc[{extra}]"
    if place.packager and extra in _PACKAGED:
        return f"`{_quoted(*_PACKAGERS[place.packager], f'hpcc-{extra}')}`"
    if words := _installer(place):
        return f"`{_quoted(*words, wanted)}`"
    checkout = (where or _with_checkout(place)).checkout
    wanted = f"{checkout or 'hpcc'}[{extra}]"
    return f"`{_fresh(place, wanted)}`, or with `{_quoted('pipx', 'install', wanted)}`"


def reinstalling(where: Installation | None = None) -> str:
    """Return the command that builds hpcc's own programs anew where they are installed.

    It keeps the extras. The programs are built from a checkout only: a wheel has those of the
    machine where it was made, and an index need not have this hpcc.
    """
    place = where or _with_checkout(this_installation())
    if place.packager:
        return _quoted(*_REINSTALLERS[place.packager], "hpcc")
    source = place.checkout or "."
    words, again = _installer(place), "--reinstall" if _is_uv(place) else "--force-reinstall"
    edits = ("-e",) if place.is_editable else ()
    command = (
        _quoted(*words, again, "--no-deps", *edits, source) if words else _fresh(place, source)
    )
    return command if place.checkout else f"{command} (in a checkout of hpcc)"


def _installer(place: Installation) -> tuple[str, ...]:
    """Return the words that install a package; none where the distribution manages Python."""
    if place.packager:
        return ()
    if place.pipx_name:
        return ("pipx", "runpip", place.pipx_name, "install")
    if _is_uv(place):
        return ("uv", "pip", "install", "--python", place.python)
    if place.is_environment or (place.has_pip and not place.is_managed):
        return (place.python, "-m", "pip", "install")
    return ()


def _is_uv(place: Installation) -> bool:
    return place.is_environment and not place.has_pip and not place.pipx_name


def _fresh(place: Installation, wanted: str) -> str:
    environment = f"{_quoted(place.python, '-m', 'venv')} ~/hpcc-venv"
    return f"{environment} && ~/hpcc-venv/bin/pip install {_quoted(wanted)}"


def _quoted(*words: str) -> str:
    if sys.platform == "win32":
        return subprocess.list2cmdline(words)
    return shlex.join(words)


def _is_there(module: str) -> bool:
    """Report whether a module can be found, without importing more than namespaces above it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _is_pipx(metadata: Path) -> bool:
    """Report whether a file is pipx's description of its environment."""
    try:
        with metadata.open("rb") as file:
            said = json.loads(file.read(_MAX_METADATA_BYTES))
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and "main_package" in said


def _packager() -> str:
    """Return who installed hpcc, if it was a package manager; else an empty text.

    Only this file is read: `importlib.metadata` takes longer to import than a compile.
    """
    record = Path(hpcc.__file__).parents[1] / f"hpcc-{hpcc.__version__}.dist-info" / "INSTALLER"
    try:
        with record.open(encoding="utf-8") as file:
            said = file.read(_MAX_INSTALLER_CHARS).strip()
    except (OSError, ValueError):
        return ""
    return said if said in _PACKAGERS else ""


def _with_checkout(place: Installation) -> Installation:
    """Return the installation with the directory that it was made from, if its record names one."""
    # Late: they take longer to import than the rest of a compile that asks for a missing extra.
    from importlib.metadata import distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        record = json.loads(distribution("hpcc").read_text("direct_url.json") or "")
        address, facts = urlsplit(record["url"]), record["dir_info"]
        path, is_editable = Path(url2pathname(address.path)), bool(facts.get("editable"))
    except (ImportError, OSError, ValueError, LookupError, AttributeError, TypeError):
        return place  # no record, or another form than PEP 610 has for a directory
    if address.scheme != "file" or not (path / "pyproject.toml").is_file():
        return place
    return replace(place, checkout=str(path), is_editable=is_editable)
