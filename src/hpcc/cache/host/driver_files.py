"""Files that change what a driver does, by names it looks up: specs and configurations.

Sources: gcc/gcc.cc, driver::set_up_specs and find_a_file; Clang's Driver::loadDefaultConfigFiles.
The names were compared with those that GCC 12-14 and Clang 14-19 ask the kernel for.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.compilers.invocation.depfile import parse_depfile, prerequisites
from hpcc.core import CallerError

TARGET: Final = re.compile(rb"^Target: (\S+)$", re.MULTILINE)
_INSTALL: Final = re.compile(rb"^install: (/.*)/$", re.MULTILINE)
_SEARCHED: Final = re.compile(rb"^(?:programs|libraries): =(.*)$", re.MULTILINE)
_PROGRAMS: Final = re.compile(rb"^programs: =(.*)$", re.MULTILINE)
_CONFIG_DIRECTORY: Final = re.compile(
    rb"^(?:InstalledDir|(?:System|User) configuration file directory): (/.*)$", re.MULTILINE
)
_MODES: Final = (b"clang", b"clang++", b"clang-cl")


def program_directories(searched: bytes) -> tuple[bytes, ...]:
    """Return where a driver looks for programs, in its order, from its `-print-search-dirs`."""
    match = _PROGRAMS.search(searched)
    return () if match is None else tuple(dict.fromkeys(match[1].split(b":")))


def specs_names(about: bytes, searched: bytes, library_path: bytes) -> tuple[bytes, ...]:
    """Name the specs files a GCC would read, from its `-v` and `-print-search-dirs`."""
    target, install = TARGET.search(about), _INSTALL.search(searched)
    if target is None or install is None:
        return ()
    machine = target[1]
    version = machine + b"/" + install[1].rpartition(b"/")[2] + b"/"
    endings = (b"/gcc/" + version, b"/gcc/" + machine + b"/", b"/gcc/")
    tools = b"/" + machine + b"/lib/"
    names: dict[bytes, None] = {}
    for match in _SEARCHED.finditer(searched):
        for directory in match[1].split(b":"):
            if directory.endswith((*endings, tools, tools + version)):
                names[directory + b"specs"] = None
    for part in library_path.split(b":") if library_path else ():
        directory = (part or b".").rstrip(b"/") + b"/"
        names[directory + version + b"specs"] = None
        names[directory + b"specs"] = None
    return tuple(names)


def config_directories(about: bytes) -> tuple[bytes, ...]:
    """Return where a Clang looks for configuration files, from its `-v`."""
    return tuple(dict.fromkeys(m[1] for m in _CONFIG_DIRECTORY.finditer(about)))


def config_names(directories: tuple[bytes, ...], target: bytes) -> tuple[bytes, ...]:
    """Name the configuration files for a target; which of them wins does not matter here."""
    bases = [*(mode + b".cfg" for mode in _MODES), target + b".cfg"]
    bases += (target + b"-" + mode + b".cfg" for mode in _MODES)
    return tuple(directory + b"/" + base for directory in directories for base in bases)


def named_target(compiler: bytes) -> bytes | None:
    """Return the target in a driver's name: `aarch64-linux-gnu` of `aarch64-linux-gnu-clang`."""
    name = compiler.rpartition(b"/")[2]
    match = re.fullmatch(rb"(.+)-clang(?:\+\+)?(?:-[0-9.]+)?", name)
    return None if match is None else match[1]


def lists_its_files(assembler: bytes, env: Mapping[bytes, bytes]) -> bool:
    """Ask an assembler whether `--MD` names what its directives read."""
    with tempfile.TemporaryDirectory(prefix="hpcc-as-") as name:
        root = os.fsencode(name)
        data, more, source, listing, output = (
            root + b"/" + base for base in (b"data", b"more", b"source.s", b"listing", b"output")
        )
        for path, text in ((data, b"x"), (more, b""), (source, b'.incbin "%s"\n.include "%s"\n')):
            with open(path, "wb") as file:
                file.write(text % (data, more) if path == source else text)
        argv = [assembler, b"--MD", listing, b"-o", output, source]
        try:
            if ask(argv, env=env, cwd=b"/").exit_code != 0:
                return False
            with open(listing, "rb") as file:
                named = prerequisites(parse_depfile(file.read(1 << 16)))
        except (OSError, CallerError):
            return False
    return {data, more, source} == set(named) and named[-1] == source
