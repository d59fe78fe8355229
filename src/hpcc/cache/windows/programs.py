"""Which files tell one cl or clang-cl from another, and starters, which run one elsewhere.

Beside the compiler are its libraries, its messages by language (`1033`) and clang's configuration;
of a link, Windows takes those beside the link. Size, times and identity of all of them are in each
key, because a hit starts no program.

A starter is a small program of the compiler's name that runs the compiler in another directory.
An upgrade replaces that compiler and leaves the starter as it was. scoop's starter has a text
beside it (`clang-cl.shim`) that names the program, so its program counts, too. Others name it
nowhere. So no result is stored unless clang-cl says that it is installed where this module looked,
and of cl the libraries must be there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.windows.disk import CacheDisk
from hpcc.compilers.scan.windows_names import key_of
from hpcc.core import WindowsPathError, parse_windows_path, windows_key

_PROGRAMS: Final = (".exe", ".dll", ".cfg")
_ARCHITECTURES: Final = frozenset({"x86", "x64", "arm", "arm64"})
# The back end, and one of the front ends: cl.exe loads them from its own directory.
_BACK_END: Final = "c2.dll"
_FRONT_ENDS: Final = frozenset({"c1.dll", "c1xx.dll"})
_MAX_PROGRAMS: Final = 2_000
_MAX_TEXT_BYTES: Final = 64 << 10
# scoop's text: one line, `path = "C:\…\clang-cl.exe"`. A line of arguments changes the command.
_TARGET: Final = re.compile(r'\s*path\s*=\s*("?)([^"%\r\n]+)\1\s*')


class StarterError(Exception):
    """The program is a starter, and which compiler it runs is not certain."""


def programs_of(disk: CacheDisk, compiler: str) -> list[str]:
    """Return the compiler's program, that of a starter, and what is beside each of them.

    Raises:
        StarterError: the text of a starter is not understood.
    """
    return list(dict.fromkeys(_beside_all(disk, compiler)))


def _beside_all(disk: CacheDisk, compiler: str) -> Iterator[str]:
    for program in _chain(disk, compiler):
        yield program
        yield from _programs(disk, _home(program), depth=1)
        if _has_text(disk, program):
            yield _text_of(program)


def imitated(disk: CacheDisk, tools: str) -> list[str]:
    """Return the cl.exe below `VCToolsInstallDir`, whose version clang-cl imitates."""
    directory = tools.rstrip("\\/")
    if not directory:
        return []
    found = _programs(disk, directory + "\\bin", depth=2)
    return [path for path in found if path.endswith("\\cl.exe")]


def has_flags(disk: CacheDisk, path: str) -> bool:
    """Tell whether a configuration file of clang may add flags, which nothing here reads."""
    text = disk.read(path, _MAX_TEXT_BYTES)
    if text is None:
        return True
    return any(line.strip() and not line.lstrip().startswith(b"#") for line in text.splitlines())


def digest_of(disk: CacheDisk, paths: list[str]) -> bytes | None:
    """Return a digest of the state of these files; None if one is unreadable."""
    parts: list[bytes] = []
    if len(paths) > _MAX_PROGRAMS:
        return None
    for path in paths:
        times = disk.times(path, is_at_rest=False)
        if times is None:
            return None
        state = (times.written_ns, times.changed_ns, times.size, *times.identity)
        parts += [path.encode("utf-8", "surrogatepass"), b"%d %d %d %d %d" % state]
    return hashlib.sha256(encode_fields(parts)).digest()


def state_of(disk: CacheDisk, compiler: str) -> bytes | None:
    """Return a value that changes with the compiler, for what is remembered of its answers."""
    try:
        return digest_of(disk, programs_of(disk, compiler))
    except StarterError:
        return None


def has_libraries(disk: CacheDisk, compiler: str) -> bool:
    """Tell whether a program named cl.exe is cl itself, by the libraries beside it.

    Raises:
        StarterError: see `programs_of`.
    """
    home = _home(_chain(disk, compiler)[-1])
    names = {name.lower() for name, is_home in (disk.entries(home) or {}).items() if not is_home}
    return _BACK_END in names and not names.isdisjoint(_FRONT_ENDS)


def is_installed_in(disk: CacheDisk, compiler: str, directory: str) -> bool:
    """Tell whether a directory, as clang-cl names it, is the one of this program.

    Raises:
        StarterError: see `programs_of`.
    """
    try:
        told = parse_windows_path(directory)
    except WindowsPathError:
        return False
    return windows_key(disk.real(str(told))) == windows_key(_home(_chain(disk, compiler)[-1]))


def _chain(disk: CacheDisk, compiler: str) -> list[str]:
    """Return the program as spelled and as it is; of a starter also the one that it runs."""
    spelled = [compiler, disk.real(compiler)]
    targets = {windows_key(t): t for t in (_target(disk, p) for p in spelled) if t is not None}
    if len(targets) > 1:
        raise StarterError
    for target in targets.values():
        real = disk.real(target)
        if any(_has_text(disk, path) for path in (target, real)):
            raise StarterError  # a starter of a starter
        spelled += [target, real]
    return list(dict.fromkeys(spelled))


def _target(disk: CacheDisk, program: str) -> str | None:
    """Return what a starter runs; None without a text of scoop.

    Raises:
        StarterError: its text has more than a path in it.
    """
    if not _has_text(disk, program):
        return None
    data = disk.read(_text_of(program), _MAX_TEXT_BYTES)
    try:
        found = _TARGET.fullmatch((data or b"").decode("utf-8-sig"))
        target = parse_windows_path(found[2].strip() if found else "")
    except (UnicodeDecodeError, WindowsPathError) as error:
        raise StarterError from error
    if key_of(target) == windows_key(program) or disk.is_directory(str(target)) is not False:
        raise StarterError
    return str(target)


def _has_text(disk: CacheDisk, program: str) -> bool:
    return disk.is_directory(_text_of(program)) is False


def _text_of(program: str) -> str:
    return program.rpartition(".")[0] + ".shim"


def _home(path: str) -> str:
    return path.rpartition("\\")[0]


def _programs(disk: CacheDisk, directory: str, *, depth: int) -> Iterator[str]:
    entries = disk.entries(directory) or {}
    for name in sorted(entries):
        if not entries[name]:
            if name.lower().endswith(_PROGRAMS):
                yield f"{directory}\\{name.lower()}"
        elif depth and (depth > 1 or name.isdecimal() or name.lower() in _ARCHITECTURES):
            yield from _programs(disk, f"{directory}\\{name}", depth=depth - 1)
