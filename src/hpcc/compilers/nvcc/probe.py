"""Reads what nvcc says about itself: its profile, and the commands of `--dryrun`. Pure."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Final

MARK: Final = b"NVCC_PREPEND_FLAGS"
"""nvcc's file holds this name. A program that only executes the real one need not know it."""
PROFILE: Final = b"nvcc.profile"
TOOLS: Final = (b"cudafe++", b"ptxas", b"fatbinary", b"nvlink")
ASKED: Final = frozenset({(13, 0)})
"""The versions whose options and answers the code was compared with."""

_ASSIGNMENT: Final = re.compile(rb"\s*([A-Za-z_]\w*)\s*(=|\+=|=\+|\?=)([^\n]*)")
_USE: Final = re.compile(rb"\$\((\w+)\)")
# Assigned by nvcc itself, and by each profile that was seen.
_BUILT_IN: Final = frozenset(
    b"_HERE_ _THERE_ _SPACE_ _TARGET_DIR_ _TARGET_SIZE_ _CUDART_ _NVVM_BRANCH_".split()
)
_ASSIGNED: Final = frozenset(
    b"TOP CICC_PATH NVVMIR_LIBRARY_DIR LD_LIBRARY_PATH PATH INCLUDES SYSTEM_INCLUDES LIBRARIES"
    b" CUDAFE_FLAGS PTXAS_FLAGS".split()
)
_EMPTY: Final = (b"CUDAFE_FLAGS", b"PTXAS_FLAGS")
_VARIABLE: Final = re.compile(rb"^#\$ (\w+)=(.*)$", re.MULTILINE)
_COMMAND: Final = re.compile(rb"^#\$ (?!\w+=)(.*)$", re.MULTILINE)
_VERSION: Final = re.compile(rb"-D__CUDACC_VER_MAJOR__=(\d+) -D__CUDACC_VER_MINOR__=(\d+)")
# With its directory, which TMPDIR names.
_TEMPORARY: Final = re.compile(rb"(?:/[\w@%+=:,./-]*/)?tmpxft_[0-9a-f]+_[0-9a-f]+")
_DIRECTORY: Final = re.compile(r"-I(/.*)")
# They differ between people, and the programs that they lead to count by content.
_PERSONAL: Final = frozenset({b"PATH", b"LD_LIBRARY_PATH"})


def is_plain_profile(text: bytes) -> bool:
    """Return whether a profile only does what is known here, whatever the environment is."""
    assigned: dict[bytes, bytes] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        found = _ASSIGNMENT.fullmatch(line)
        if found is None or found[1] not in _ASSIGNED:
            return False
        if not set(_USE.findall(found[3])) <= _BUILT_IN | assigned.keys():
            return False
        if found[1] in {b"TOP", b"CICC_PATH", b"NVVMIR_LIBRARY_DIR"} and found[2] != b"=":
            return False
        if b"`" in found[3] or b"$" in _USE.sub(b"", found[3]):
            return False
        assigned[found[1]] = found[3]
    return b"TOP" in assigned and not any(assigned.get(name, b"").strip() for name in _EMPTY)


@dataclass(frozen=True, slots=True)
class DryRun:
    """What `nvcc --dryrun` of one compile shows.

    `host` is the host compiler as a word, `text` all that is the same for everybody and each run.
    """

    variables: dict[bytes, bytes]
    host: bytes
    version: tuple[int, int]
    text: bytes


def read_dry_run(answer: bytes) -> DryRun | None:
    """Return what it shows; None if it is not understood."""
    variables = {m[1]: m[2] for m in _VARIABLE.finditer(answer)}
    commands = [m[1] for m in _COMMAND.finditer(answer)]
    version = _VERSION.search(answer)
    hosts = {host for line in commands if b" -D__CUDA_ARCH" in line and (host := _first(line))}
    if version is None or len(hosts) != 1 or not _has_plain_includes(variables):
        return None
    lines = [name + b"=" + v for name, v in variables.items() if name not in _PERSONAL]
    text = _TEMPORARY.sub(b"tmpxft", b"\n".join((*lines, *commands)))
    return DryRun(variables, hosts.pop(), (int(version[1]), int(version[2])), text)


@dataclass(frozen=True, slots=True)
class Pass:
    """A run of the preprocessor, as a command that prints its text. `is_host`: not for a device."""

    argv: tuple[bytes, ...]
    is_host: bool


def read_passes(answer: bytes) -> tuple[Pass, ...] | None:
    """Return the preprocessor runs that a dry run shows; None if one is not understood.

    The words of a command hold no character that a shell interprets, but quotes, which `shlex`
    reads as a shell does (`options`).
    """
    found: list[Pass] = []
    for match in _COMMAND.finditer(answer):
        if b" -E -x c++ " not in match[1]:
            continue
        try:
            words = [word.encode() for word in shlex.split(match[1].decode("ascii"))]
        except ValueError:
            return None
        at = words.index(b"-o") if words.count(b"-o") == 1 else len(words)
        if at + 2 != len(words):
            return None
        is_host = not any(word.startswith(b"-D__CUDA_ARCH__=") for word in words)
        found.append(Pass((*words[:at], b"-P"), is_host))
    return tuple(found) or None


def _first(command: bytes) -> bytes:
    """Return the program of a command: `gcc`, or `"/usr/bin"/gcc`."""
    word = command.split(b" -", 1)[0].replace(b'"', b"")
    return word if re.fullmatch(rb"[\w@%+:./-]+", word) else b""


def _has_plain_includes(variables: dict[bytes, bytes]) -> bool:
    """Return whether the profile adds directories of headers, and nothing else."""
    text = b" ".join(variables.get(name, b"") for name in (b"INCLUDES", b"SYSTEM_INCLUDES"))
    try:
        words = iter(shlex.split(text.decode("ascii")))
    except ValueError:
        return False
    return all(
        _DIRECTORY.fullmatch(word) or (word == "-isystem" and next(words, "").startswith("/"))
        for word in words
    )
