"""Probes one compiler: runs it to find the programs and files that decide its output."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.tools import ask
from hpcc.cache.host.driver_answers import refusal_of_driver, specs_files
from hpcc.cache.host.driver_files import lists_its_files
from hpcc.cache.host.evidence import Evidence
from hpcc.cache.host.installations import candidates, trees_searched
from hpcc.cache.host.loader import (
    DIRECTING_FILES,
    Skipped,
    has_impostor,
    libraries_of,
    look_at_skipped,
)
from hpcc.cache.host.tool_probe import ask_tool
from hpcc.cache.host.wrappers import executes_others
from hpcc.compilers.families import family_that_answers, tool_that_answers
from hpcc.compilers.gnu.driver_files import program_directories
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.spec.drivers import TARGET, DriverAnswers, without_cl_variables
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

_MAX_DRIVER_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """A compiler by content. `digest` (SHA-256) covers all files and answers of the probe.

    `family` is what the driver answered (gcc or clang), `major` the version's first number.
    `lists_assembler_files`: its `as` understands `--MD` and lists the files of `.incbin` and
    `.include` there. `target` and `config_directories` are Clang's: the name that its configuration
    files start with, and their directories. `relative_names` are the names of specs files in
    relative parts of LIBRARY_PATH. `has_hidden_flags`: a configuration or specs file may add flags
    to every command.
    """

    digest: bytes
    family: CompilerFamily
    major: int
    lists_assembler_files: bool = False
    target: bytes = b""
    config_directories: tuple[bytes, ...] = ()
    relative_names: tuple[bytes, ...] = ()
    has_hidden_flags: bool = False


@dataclass(frozen=True, slots=True)
class KnownCompiler:
    """An identity, or a bypass, and what shows whether it still holds."""

    identity: Identity | Bypass  # a wrapper is remembered, too
    evidence: Evidence


class CompilerProbe:
    """Runs one compiler to find the programs and files that decide its output."""

    def __init__(
        self,
        memo: FileMemo,
        compiler: bytes,
        env: Mapping[bytes, bytes],
        is_cancelled: Callable[[], bool],
        question: tuple[bytes, ...],
    ) -> None:
        self._memo, self._compiler, self._is_cancelled = memo, compiler, is_cancelled
        self._question = question
        self._env = {**without_cl_variables(env), b"LC_ALL": b"C"}
        self._files: dict[bytes, bytes] = {}
        self._absent: dict[bytes, None] = {}
        self._tried: dict[bytes, None] = {}
        self._began_ns = memo.now_ns()
        self._skipped: dict[bytes, Skipped] = {}
        self._own_directories: tuple[bytes, ...] = ()
        self._target = b""

    def probe(self) -> KnownCompiler | Bypass:
        """Probe a driver, or with a question a tool."""
        real = os.path.realpath(self._compiler)
        refusal = refusal_of_driver(self._compiler, real)
        if refusal is not None:
            return refusal
        return self._probe_tool(real) if self._question else self._probe_driver(real)

    def _probe_tool(self, real: bytes) -> KnownCompiler | Bypass:
        try:
            self._add_program(real)
            self._add(self._compiler)  # as called: see below
            about = ask_tool(self._compiler, real, self._question, self._env)
        except OSError:
            return Bypass(BypassReason.COMPILER_UNREADABLE)
        if about is None:
            return Bypass(BypassReason.WRAPPER)
        answered = tool_that_answers(about)
        if answered is None:
            return Bypass(BypassReason.UNKNOWN_COMPILER)
        self._target = target[1] if (target := TARGET.search(about)) else b""
        answers = DriverAnswers(about, b"", None, self._compiler, real)
        return self._known(*answered, about, answered[0].driver_files(answers))

    def _probe_driver(self, real: bytes) -> KnownCompiler | Bypass:
        try:
            about = ask([self._compiler, b"-v"], env=self._env, cwd=b"/").stderr
            answered = family_that_answers(about)
            if answered is None:
                return Bypass(BypassReason.UNKNOWN_COMPILER)
            family, major = answered
            searched = ask([self._compiler, b"-print-search-dirs"], env=self._env, cwd=b"/").stdout
            self._own_directories = program_directories(searched)
            self._target = target[1] if (target := TARGET.search(about)) else b""
            self._add_program(real)
            self._add(self._compiler)  # as called: the link may lead to another compiler later
            programs = {name: self._add_named(name) for name in family.programs}
            paths = self._env.get(b"LIBRARY_PATH")
            driver_files = family.driver_files(
                DriverAnswers(about, searched, paths, self._compiler, real)
            )
            assembler = programs[b"as"]
            lists = assembler is not None and lists_its_files(assembler, self._env)
            found = tuple(filter(None, programs.values()))
            if executes_others(
                self._compiler, found, family.program_questions, env=self._env, cwd=b"/"
            ):
                files = tuple(self._files.items())
                evidence = Evidence(files, tuple(self._absent), (), (), ())
                return KnownCompiler(Bypass(BypassReason.WRAPPER), evidence)
        except OSError:
            return Bypass(BypassReason.COMPILER_UNREADABLE)
        return self._known(family, major, about, driver_files, lists_assembler_files=lists)

    def _known(
        self,
        family: CompilerFamily,
        major: int,
        about: bytes,
        driver_files: dict[bytes, None],
        *,
        lists_assembler_files: bool = False,
    ) -> KnownCompiler | Bypass:
        """Return what all the files and answers show together."""
        driver_files.update(dict.fromkeys(specs_files(about)))
        if not self._add_driver_files(driver_files):
            return Bypass(BypassReason.CONFIG_FILE)
        listings = candidates(self._memo, about)
        if listings is None or b"" in self._files.values():
            return Bypass(BypassReason.COMPILER_UNREADABLE)
        files = tuple(sorted(self._files.items()))
        trees = trees_searched(self._compiler, about) if family.finds_installations else ()
        parts = [about, *(part for file in files for part in file), *self._absent]
        parts += [part for tree in trees for part in tree]
        identity = Identity(
            hashlib.sha256(encode_fields(parts)).digest(),
            family,
            major,
            lists_assembler_files,
            self._target,
            family.config_directories(about),
            tuple(name for name in driver_files if not name.startswith(b"/")),
            any(map(os.path.lexists, driver_files)),
        )
        # Not in the digest: they show only when to ask again.
        for path in DIRECTING_FILES:
            if (digest := self._memo.digest(path)) is None:
                self._tried[path] = None
            else:
                files = (*files, (path, digest))
        absent = (*self._absent, *self._tried)
        skipped = tuple(self._skipped.values())
        is_foreign = has_impostor(self._env, self._files)
        return KnownCompiler(
            Bypass(BypassReason.LOADER) if is_foreign else identity,
            Evidence(files, absent, listings, trees, skipped),
        )

    def _add_driver_files(self, names: Iterable[bytes]) -> bool:
        """Add existing files to the identity; return False if one of them names further files."""
        for name in names:
            if not name.startswith(b"/"):
                continue
            if not os.path.lexists(name):
                self._absent[name] = None
                continue
            self._add(name)
            with contextlib.suppress(OSError), open(name, "rb") as file:
                text = file.read(_MAX_DRIVER_FILE_BYTES)
                if b"@" in text or b"%include" in text or len(text) == _MAX_DRIVER_FILE_BYTES:
                    return False
        return True

    def _add(self, path: bytes) -> None:
        self._files[path] = self._memo.digest(path) or b""

    def _add_named(self, name: bytes) -> bytes | None:
        """Add a program that the driver finds by name; return its path."""
        argv = [self._compiler, b"-print-prog-name=" + name]
        found = ask(argv, env=self._env, cwd=b"/").stdout.strip()
        for candidate in self._earlier(name, found):
            if not os.path.lexists(candidate):
                self._absent[candidate] = None
        if found.startswith(b"/"):
            self._add_program(found)
            return found
        for directory in self._env.get(b"PATH", b"").split(b":"):
            candidate = (directory or b".") + b"/" + name
            if os.access(candidate, os.X_OK):
                self._add_program(candidate)
                return candidate
            # Not in the digest: people have different PATHs, and the program found is in it.
            self._tried[candidate] = None
        return None

    def _earlier(self, name: bytes, found: bytes) -> Iterator[bytes]:
        """Yield the paths where the driver looks for a program, up to the one it found."""
        for directory in self._own_directories:
            for base in (self._target + b"-" + name, name):
                yield directory.rstrip(b"/") + b"/" + base
            if os.path.dirname(found) == directory.rstrip(b"/"):
                return

    def _add_program(self, path: bytes) -> None:
        """Add a program and its shared libraries: most of Debian's clang is in a library."""
        if path in self._files:
            return
        self._add(path)
        libraries = libraries_of(path, self._env, b"--version")
        for library in libraries.loaded:
            self._add(library)
        self._tried.update(dict.fromkeys(libraries.tried))
        for skipped in libraries.skipped:
            self._skipped[skipped] = look_at_skipped(skipped, self._memo, self._began_ns)
