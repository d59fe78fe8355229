"""Clang's configuration files: the names that it looks up.

Source: Clang's Driver::loadDefaultConfigFiles. The names were compared with those that Clang 14-19
ask the kernel for.
"""

from __future__ import annotations

import re
from typing import Final

_CONFIG_DIRECTORY: Final = re.compile(
    rb"^(?:InstalledDir|(?:System|User) configuration file directory): (/.*)$", re.MULTILINE
)
_MODES: Final = (b"clang", b"clang++", b"clang-cl")


def config_directories(about: bytes) -> tuple[bytes, ...]:
    """Return the directories where a Clang looks for configuration files, from its `-v`."""
    return tuple(dict.fromkeys(m[1] for m in _CONFIG_DIRECTORY.finditer(about)))


def config_names(directories: tuple[bytes, ...], target: bytes) -> tuple[bytes, ...]:
    """Return the configuration files for a target, in no particular order."""
    bases = [*(mode + b".cfg" for mode in _MODES), target + b".cfg"]
    bases += (target + b"-" + mode + b".cfg" for mode in _MODES)
    return tuple(directory + b"/" + base for directory in directories for base in bases)


def named_target(compiler: bytes) -> bytes | None:
    """Return the target in a driver's name: `aarch64-linux-gnu` of `aarch64-linux-gnu-clang`."""
    name = compiler.rpartition(b"/")[2]
    match = re.fullmatch(rb"(.+)-clang(?:\+\+)?(?:-[0-9.]+)?", name)
    return None if match is None else match[1]
