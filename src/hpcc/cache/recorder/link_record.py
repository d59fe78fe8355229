"""One recorded link: its fields and their limits.

A record is what this machine's daemon saw: which files the linker listed, what they held, what it
wrote. It is a claim of its user and proves nothing to others. An input without a digest has a word
in its place, so that nobody takes the record for complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

from hpcc.cache.recorder.compiles import MAX_AT_US, MAX_BYTES, MAX_TOOK_US

MAX_INPUTS: Final = 4096
MAX_PATH: Final = 4096
# As JSON. With the three paths of a record a row stays below half of a frame.
_MAX_INPUTS_BYTES: Final = 320 << 10
_MAX_COMMAND_BYTES: Final = 32 << 10
_MAX_ARGUMENTS: Final = 4096
_MAX_LEFT_OUT: Final = 1 << 32
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
# Digest, quotes, brackets and commas of one input.
_AROUND: Final = 72


class NoDigest(StrEnum):
    """Why a file of a link has no digest."""

    GONE = "gone"  # a temporary object of link-time optimisation
    CHANGED = "changed"  # during the link, or before it was read
    UNREADABLE = "unreadable"  # or special, or another process writes to it
    TOO_MUCH = "too-much"  # beyond what is read for one link


class LinkFile(NamedTuple):
    """A file of a link. `digest` is a SHA-256 in hex, or a word of `NoDigest`."""

    path: str
    digest: str

    @property
    def is_known(self) -> bool:
        """Return whether the content is known."""
        return _DIGEST.fullmatch(self.digest) is not None


class LinkRecord(NamedTuple):
    """One link. Times are microseconds, `began_us` since the epoch.

    `tools` is the digest of the compiler's identity: its programs and files, without the linker.
    `command` is cut if it is long; `command_digest` covers all of it. `inputs_digest` covers all
    inputs, also those that are left out.
    """

    began_us: int
    took_us: int
    output: LinkFile
    size_bytes: int
    cwd: str
    compiler: str
    tools: str
    command: tuple[str, ...]
    command_digest: str
    inputs: tuple[LinkFile, ...]
    inputs_digest: str
    left_out: int = 0

    @property
    def lacking(self) -> int:
        """Return for how many files the record has no digest, or does not have the file."""
        return self.left_out + sum(not file.is_known for file in (self.output, *self.inputs))

    @property
    def is_complete(self) -> bool:
        """Return whether the record has the digest of each file."""
        return not self.lacking

    def __str__(self) -> str:
        """Return whether it is complete, in words."""
        return f"{self.lacking} without a digest" if self.lacking else "complete"


def digest_of_inputs(inputs: Iterable[LinkFile]) -> str:
    """Return the digest that stands for all inputs in their order."""
    hasher = hashlib.sha256()
    for path, digest in inputs:
        hasher.update(b"%s\0%s\n" % (os.fsencode(path), digest.encode()))
    return hasher.hexdigest()


def digest_of_command(argv: Iterable[bytes]) -> str:
    """Return the digest of a command's words."""
    return hashlib.sha256(b"".join(word + b"\0" for word in argv)).hexdigest()


def link_row_of(link: LinkRecord) -> list[object]:
    """Return a link as JSON has it; inputs that do not fit are left out and counted."""
    inputs: list[list[str]] = []
    room = _MAX_INPUTS_BYTES
    for path, digest in link.inputs[:MAX_INPUTS]:
        size = len(json.dumps(path)) + _AROUND
        if size <= room and len(path) <= MAX_PATH:
            inputs.append([path, digest])
            room -= size
    left_out = link.left_out + len(link.inputs) - len(inputs)
    return [
        min(max(link.began_us, 0), MAX_AT_US), min(max(link.took_us, 0), MAX_TOOK_US),
        [link.output.path[:MAX_PATH], link.output.digest], min(link.size_bytes, MAX_BYTES),
        link.cwd[:MAX_PATH], link.compiler[:MAX_PATH], link.tools,
        _first(link.command), link.command_digest, inputs, link.inputs_digest,
        min(left_out, _MAX_LEFT_OUT),
    ]  # fmt: skip


def link_of(row: object) -> LinkRecord:
    """Return the link of a row from a file.

    Raises:
        ValueError: a field is missing, of another type, or outside its limit.
    """
    match row:
        case [
            int(began), int(took), list(output), int(size), str(cwd), str(compiler), str(tools),
            list(command), str(command_digest), list(inputs), str(inputs_digest), int(left_out),
        ]:  # fmt: skip
            pass
        case _:
            raise ValueError("not a link")
    for number, most in (
        (began, MAX_AT_US), (took, MAX_TOOK_US), (size, MAX_BYTES), (left_out, _MAX_LEFT_OUT),
    ):  # fmt: skip
        if isinstance(number, bool) or not 0 <= number <= most:
            raise ValueError("a number outside its limit")
    if max(len(cwd), len(compiler)) > MAX_PATH or len(inputs) > MAX_INPUTS:
        raise ValueError("a path that is too long, or too many inputs")
    digests = (tools, command_digest, inputs_digest)
    if not all(_DIGEST.fullmatch(digest) for digest in digests):
        raise ValueError("not a digest")
    if len(command) > _MAX_ARGUMENTS or not all(isinstance(word, str) for word in command):
        raise ValueError("not a command")
    return LinkRecord(
        began, took, _file_of(output), size, cwd, compiler, tools, tuple(command), command_digest,
        tuple(map(_file_of, inputs)), inputs_digest, left_out,
    )  # fmt: skip


def _file_of(row: object) -> LinkFile:
    match row:
        case [str(path), str(digest)] if 0 < len(path) <= MAX_PATH:
            file = LinkFile(path, digest)
            return file if file.is_known else LinkFile(path, NoDigest(digest).value)
        case _:
            raise ValueError("not a file of a link")


def _first(command: Iterable[str]) -> list[str]:
    """Return the first words of a command, as many as fit."""
    words: list[str] = []
    room = _MAX_COMMAND_BYTES
    for word in command:
        room -= len(json.dumps(word)) + 1
        if room < 0 or len(words) == _MAX_ARGUMENTS:
            break
        words.append(word)
    return words
