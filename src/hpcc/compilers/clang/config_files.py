"""Clang's configuration files: the names that it looks up.

Sources: Clang's Driver::loadDefaultConfigFiles and loadZOSCustomizationFile; BareMetal.cpp. The
names were compared with those that Clang 14, 17, 19 and 22 ask the kernel for.
"""

from __future__ import annotations

import re
from typing import Final

_CONFIG_DIRECTORY: Final = re.compile(
    rb"^(?:InstalledDir|(?:System|User) configuration file directory): (/.*)$", re.MULTILINE
)
_MODES: Final = (b"clang", b"clang++", b"clang-cl")
# For `x86_64-apple-macosx14.0`, Clang 22 looks for `macosx14` and `macosx` as well: each system,
# with an environment behind the version, too (`ios17.0-simulator`).
_VERSIONED: Final = re.compile(rb"([^-]+-[^-]+-)([a-z]+)([0-9]+)[0-9.]*(-.*)?")
# Without its version, a system has LLVM's name for it (Triple::getOSTypeName).
_SYSTEMS: Final = {b"macos": b"macosx", b"visionos": b"xros"}
# Beside the directory of the compiler: of z/OS, and where sysroots for bare metal are.
_ZOS: Final = b"/../etc/clang.cfg"
_RUNTIMES: Final = b"/../lib/clang-runtimes/"
_MULTILIB: Final = b"multilib.yaml"


def config_directories(about: bytes) -> tuple[bytes, ...]:
    """Return the directories where a Clang looks for configuration files, from its `-v`."""
    return tuple(dict.fromkeys(m[1] for m in _CONFIG_DIRECTORY.finditer(about)))


def config_names(directories: tuple[bytes, ...], target: bytes) -> tuple[bytes, ...]:
    """Return the configuration files for a target, in no particular order."""
    targets = _spellings(target)
    bases = [*(mode + b".cfg" for mode in _MODES), *(name + b".cfg" for name in targets)]
    bases += (name + b"-" + mode + b".cfg" for name in targets for mode in _MODES)
    beside = (_ZOS, _RUNTIMES + _MULTILIB, _RUNTIMES + target + b"/" + _MULTILIB)
    endings = (*(b"/" + base for base in bases), *beside)
    return tuple(directory + ending for directory in directories for ending in endings)


def _spellings(target: bytes) -> tuple[bytes, ...]:
    """Return the target, and it without a part or all of the version of its system."""
    match = _VERSIONED.fullmatch(target)
    if match is None:
        return (target,)
    before, system, major, behind = match.groups(default=b"")
    system = _SYSTEMS.get(system, system)
    shorter = (before + system + version + behind for version in (major, b""))
    return tuple(dict.fromkeys((target, *shorter)))


def named_target(compiler: bytes) -> bytes | None:
    """Return the target in a driver's name: `aarch64-linux-gnu` of `aarch64-linux-gnu-clang`."""
    name = compiler.rpartition(b"/")[2]
    match = re.fullmatch(rb"(.+)-clang(?:\+\+)?(?:-[0-9.]+)?", name)
    return None if match is None else match[1]
