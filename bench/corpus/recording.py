"""What the recording program wrote, as commands that can be run again in another place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset(
    (".c", ".cc", ".cp", ".cpp", ".cxx", ".c++", ".C", ".S", ".sx", ".s", ".m", ".i", ".ii")
)
# Of the build's own bookkeeping, and what changes from run to run.
_DROPPED: Final = frozenset(
    {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKE_TERMOUT", "MAKE_TERMERR", "PATH", "OLDPWD", "_"}
)
# Files of configure's questions; a build directory keeps some of them.
_QUESTION: Final = re.compile(
    r"(^|/)(conftest|CMakeScratch|CompilerIdC|meson-private|CMakeTmp|_CMakeLTOTest)"
)
# Besides the object: what flags may make, named after it.
SIDE_SUFFIXES: Final = (".d", ".gcno", ".dwo", ".su", ".ci")


@dataclass(frozen=True, slots=True)
class Command:
    """One compile: argv[0] is the compiler's bare name. All paths are as the build spelled them."""

    cwd: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    source: str
    output: str
    depfile: str

    @property
    def object(self) -> str:
        """Return the absolute path of the output."""
        return os.path.normpath(os.path.join(self.cwd, self.output))

    @property
    def is_assembler(self) -> bool:
        return self.source.endswith((".S", ".sx", ".s"))

    def outputs(self) -> tuple[str, ...]:
        """Return absolute paths of all files that the compile may write."""
        stem = os.path.splitext(self.object)[0]
        source = os.path.normpath(os.path.join(self.cwd, self.source))
        names = [self.object, *(stem + suffix for suffix in SIDE_SUFFIXES)]
        if self.depfile:
            names.append(os.path.normpath(os.path.join(self.cwd, self.depfile)))
        return tuple(name for name in dict.fromkeys(names) if name != source)

    def moved(self, old: str, new: str) -> Command:
        """Return the same compile in a tree whose path changed from `old` to `new`."""
        env = tuple((name, rebased(value, old, new)) for name, value in self.env)
        return replace(
            self,
            cwd=rebased(self.cwd, old, new),
            argv=tuple(rebased(word, old, new) for word in self.argv),
            env=env,
            source=rebased(self.source, old, new),
            output=rebased(self.output, old, new),
            depfile=rebased(self.depfile, old, new),
        )

    def retargeted(self) -> Command:
        """Return the compile as a second target would run it: only the names of outputs differ."""
        output, depfile = _second(self.output), _second(self.depfile)
        names = {self.output: output}
        if self.depfile:
            names[self.depfile] = depfile
        argv = []
        for word in self.argv:
            joined = next((flag for flag in ("-o", "-MF", "-MT", "-MQ") if word[len(flag):] in names
                           and word.startswith(flag)), "")  # fmt: skip
            argv.append(
                names.get(word, joined + names.get(word[len(joined) :], word) if joined else word)
            )
        return replace(self, argv=tuple(argv), output=output, depfile=depfile)


def _second(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return f"{stem}.second{suffix}" if name else ""


def rebased(text: str, old: str, new: str) -> str:
    """Replace the directory `old` by `new` wherever a text holds it as a whole path."""
    if old not in text:
        return text
    return re.sub(re.escape(old) + r"(?![\w.+-])", lambda _: new, text)


def parse_record(data: bytes) -> Command | None:
    """Return the compile of one record; None if it is a link, a question or another command."""
    words = [os.fsdecode(word) for word in data.split(b"\0")]
    try:
        end = words.index("environment", 2)
    except ValueError:
        return None
    cwd, argv = words[0], words[1 : end - 1]
    pairs = (word.partition("=") for word in words[end + 1 :] if word)
    env = tuple(
        (name, value)
        for name, _, value in pairs
        if name not in _DROPPED and not name.startswith("CORPUS_")
    )
    return command_of(cwd, argv, env)


def command_of(
    cwd: str, argv: Sequence[str], env: tuple[tuple[str, str], ...] = ()
) -> Command | None:
    """Return what one compiler's command line means; None unless it compiles one source."""
    if "-c" not in argv or "-E" in argv or "-M" in argv or "-MM" in argv:
        return None
    sources: list[str] = []
    words = _Words()
    rest = iter(argv[1:])
    for word in rest:
        if word in _WITH_VALUE:
            words.take(word, next(rest, ""))
        elif word.startswith("-"):
            words.take_joined(word)
        elif os.path.splitext(word)[1] in SUFFIXES:
            sources.append(word)
    if len(sources) != 1 or _QUESTION.search(sources[0]) or _QUESTION.search(cwd):
        return None
    output = words.output or os.path.splitext(os.path.basename(sources[0]))[0] + ".o"
    depfile = words.depfile
    if words.has_deps and not depfile:
        depfile = os.path.splitext(output)[0] + ".d"
    return Command(cwd, tuple(argv), env, sources[0], output, depfile)


_WITH_VALUE: Final = frozenset(
    ("-o", "-MF", "-MT", "-MQ", "-I", "-isystem", "-iquote", "-idirafter", "-include", "-D", "-x")
)


class _Words:
    """What flags say about outputs."""

    def __init__(self) -> None:
        self.output, self.depfile, self.has_deps = "", "", False

    def take(self, flag: str, value: str) -> None:
        if flag == "-o":
            self.output = value
        elif flag == "-MF":
            self.depfile = value

    def take_joined(self, word: str) -> None:
        if word.startswith(("-Wp,-MD,", "-Wp,-MMD,")):
            self.depfile = word.split(",")[2]
        elif word in {"-MD", "-MMD"}:
            self.has_deps = True
        elif word.startswith("-MF"):
            self.depfile = word[3:]
        elif word.startswith("-o"):
            self.output = word[2:]


def read_commands(directory: Path, tree: Path) -> list[Command]:
    """Return the compiles that left an object in `tree`, one per object, in a stable order."""
    found: dict[str, Command] = {}
    for path in sorted(directory.iterdir()):
        command = parse_record(path.read_bytes())
        if command is None or not _is_in(tree, command.cwd) or not _is_in(tree, command.object):
            continue
        source = os.path.join(command.cwd, command.source)
        if os.path.isfile(source) and os.path.isfile(command.object):
            found[command.object] = command
    return [found[name] for name in sorted(found)]


def _is_in(tree: Path, path: str) -> bool:
    return path == str(tree) or path.startswith(f"{tree}/")


def sample(commands: Sequence[Command], most: int) -> list[Command]:
    """Return at most `most` commands, spread evenly over the list."""
    if most <= 0 or len(commands) <= most:
        return list(commands)
    return [commands[i * len(commands) // most] for i in range(most)]


def headers_of(depfiles: Iterable[str], tree: str) -> list[str]:
    """Return the headers below `tree` that depfiles name, those in most depfiles first."""
    counts: dict[str, int] = {}
    for text in depfiles:
        words = re.split(r"(?<!\\)\s+", text.replace("\\\n", " "))
        names = {os.path.normpath(word) for word in words if not word.endswith(":")}
        for name in names:
            if name.startswith(tree + "/") and name.endswith((".h", ".hh", ".hpp", ".hxx")):
                counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))
