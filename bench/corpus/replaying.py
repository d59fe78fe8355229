"""Runs recorded compiles through a tool, counts real compiler runs and compares every output."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corpus.recording import Command
from corpus.shims import real_runs
from corpus.tools import BARE, HPCC, Tool

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COMPILE_SECONDS: Final = 300
_MOST_PLACES: Final = 3
# Which of two processes that write one stream comes first differs from run to run.
_SPLIT: Final = re.compile(rb"(?<=\n)")


class OutOfTimeError(Exception):
    """The package's time is over."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one compile left: its end, its messages, its files, and real compiler runs."""

    exit_code: int
    messages: bytes
    files: tuple[tuple[str, str], ...]
    runs: int


@dataclass
class Row:
    """One scenario of one package. `hits` and `differing` are by tool."""

    scenario: str
    commands: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    differing: dict[str, list[str]] = field(default_factory=dict)
    missed: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    unstable: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


class Replayer:
    """Runs the commands of one package. `deadline` is on the monotonic clock.

    `normal` returns what counts in an output with this name and content.
    """

    def __init__(
        self,
        scratch: Path,
        deadline: float,
        jobs: int = 2,
        normal: Callable[[str, bytes], bytes] = lambda _name, data: data,
    ) -> None:
        self._normal = normal
        self._counts = scratch / "counts"
        self._counts.mkdir(parents=True, exist_ok=True)
        self._deadline, self._jobs = deadline, jobs

    def run(self, tool: Tool, commands: Sequence[Command]) -> list[Seen]:
        """Remove what the commands write, then run all of them.

        Raises:
            OutOfTimeError: the deadline is over.
        """
        for command in commands:
            for name in command.outputs():
                Path(name).unlink(missing_ok=True)
            os.makedirs(os.path.dirname(command.object), exist_ok=True)
            if command.depfile:
                os.makedirs(
                    os.path.dirname(os.path.join(command.cwd, command.depfile)), exist_ok=True
                )
        with ThreadPoolExecutor(self._jobs) as pool:
            return list(pool.map(lambda pair: self._run(tool, *pair), enumerate(commands)))

    def _run(self, tool: Tool, number: int, command: Command) -> Seen:
        if time.monotonic() > self._deadline:
            raise OutOfTimeError
        count = self._counts / str(number)
        count.unlink(missing_ok=True)
        env = environment(command, tool.env, count)
        try:
            done = subprocess.run(
                [*tool.prefix, *command.argv], cwd=command.cwd, env=env, capture_output=True,
                stdin=subprocess.DEVNULL, timeout=_COMPILE_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise OutOfTimeError from error
        lines = count.read_text().splitlines() if count.exists() else []
        runs = real_runs(lines, is_assembler=command.is_assembler)
        messages = b"".join(sorted(_SPLIT.split(done.stdout + done.stderr)))
        return Seen(done.returncode, messages, files_of(command, self._normal), runs)


def environment(command: Command, extra: Mapping[str, str], count: Path) -> dict[str, str]:
    """Return the recorded environment with the machine's PATH and the tool's variables."""
    env = dict(command.env)
    return {**env, "PATH": _PATH, "PWD": command.cwd, **extra, "CORPUS_COUNT": str(count)}


def files_of(
    command: Command, normal: Callable[[str, bytes], bytes]
) -> tuple[tuple[str, str], ...]:
    """Return (path, digest) of each file that the compile wrote; see `Replayer`."""
    found = []
    for name in command.outputs():
        path = Path(name)
        if path.is_file():
            data = normal(name, path.read_bytes())
            found.append((name, hashlib.sha256(data).hexdigest()))
    return tuple(found)


def differences(bare: Seen, other: Seen) -> list[str]:
    """Return what differs between the bare compile and another: "exit code", "messages", paths."""
    found = []
    if bare.exit_code != other.exit_code:
        found.append("exit code")
    if bare.messages != other.messages:
        found.append("messages")
    old, new = dict(bare.files), dict(other.files)
    return found + sorted(
        name for name in old.keys() | new.keys() if old.get(name) != new.get(name)
    )


def without_clock(compare: Seen, again: Seen, found: Sequence[str]) -> list[str]:
    """Return the differences that two bare compiles do not have, too."""
    unstable = set(differences(compare, again))
    return [name for name in found if name not in unstable]


def compare_all(
    replayer: Replayer,
    bare: Tool,
    commands: Sequence[Command],
    seen: Mapping[str, list[Seen]],
    row: Row,
) -> None:
    """Fill the row's hits, misses and differing outputs from one run of each tool."""
    row.commands = len(commands)
    for name, results in seen.items():
        if name == BARE:
            continue
        row.hits[name] = sum(s.runs == 0 for s in results)
        row.missed[name] = [c.source for c, s in zip(commands, results, strict=True) if s.runs]
    again: dict[int, Seen] = {}
    for name, results in seen.items():
        differing = row.differing.setdefault(name, [])
        for at, (first, other) in enumerate(zip(seen[BARE], results, strict=True)):
            found = differences(first, other) if name != BARE else []
            if found and at not in again:
                again[at] = replayer.run(bare, [commands[at]])[0]
            if found:
                left = without_clock(first, again[at], found)
                differing += [f"{commands[at].source}: {what}" for what in left]
                if not left:
                    row.unstable.append(commands[at].source)
    row.differing.pop(BARE, None)


def since(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return how much each counter grew; counters that did not are left out."""
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: value for name, value in grown.items() if value > 0}


def measure(
    replayer: Replayer, tools: Sequence[Tool], scenario: str, commands: Sequence[Command]
) -> Row:
    """Run one scenario's commands bare and through each tool."""
    row, seen = Row(scenario), {}
    for tool in tools:
        before = tool.reasons()
        seen[tool.name] = replayer.run(tool, commands)
        if tool.name == HPCC:
            row.reasons = since(before, tool.reasons())
            missed = [c.object for c, s in zip(commands, seen[HPCC], strict=True) if s.runs]
            row.places = [tool.place(name) for name in missed[:_MOST_PLACES]]
    compare_all(replayer, tools[0], commands, seen, row)
    return row
