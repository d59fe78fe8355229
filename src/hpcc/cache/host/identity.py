"""Identifies a compiler by the content of every program and file that decides its output.

The compiler is probed once, and again as soon as the stat of one of those files changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.tools import ask
from hpcc.cache.base.trees import look_at_tree
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.host.driver_answers import (
    may_name_relative,
    refusal_of_driver,
    specs_files,
)
from hpcc.cache.host.driver_files import lists_its_files
from hpcc.cache.host.evidence import Evidence
from hpcc.cache.host.installations import candidates, trees_searched
from hpcc.cache.host.loader import (
    DIRECTING_FILES,
    IDENTITY_ENV,
    Skipped,
    has_impostor,
    has_unnameable_directory,
    libraries_of,
    loader_environment,
    look_at_skipped,
)
from hpcc.cache.host.search_path import SearchAnswer, search_of
from hpcc.cache.host.wrappers import executes_others
from hpcc.cache.replay.engine import Engine, Outcome, Plan
from hpcc.cache.replay.replay import NotPinnedError, Pins
from hpcc.compilers.clang.config_files import config_names
from hpcc.compilers.families import family_that_answers
from hpcc.compilers.gnu.driver_files import program_directories
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.drivers import (
    ROOT_ENV,
    TARGET,
    DriverAnswers,
    without_cl_variables,
)
from hpcc.compilers.spec.table import Bypass
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.bypass import BypassReason

_MAX_DRIVER_FILE_BYTES: Final = 1 << 20
# What changes the programs a driver finds.
_IDENTITY_ENV: Final = (
    b"PATH",
    b"COMPILER_PATH",
    b"GCC_EXEC_PREFIX",
    b"LIBRARY_PATH",  # GCC reads specs there
    b"CLANG_NO_DEFAULT_CONFIG",
    *ROOT_ENV,
    *IDENTITY_ENV,
)
_MAX_REMEMBERED: Final = 1024
_MAX_ASKING: Final = 16  # questions at once, about different compilers
_NOBODY: Final = -1  # no connection to answer on


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
class _Known:
    identity: Identity | Bypass  # a wrapper is remembered, too
    evidence: Evidence


class Compilers:
    """Identities and search paths of the compilers met so far. Thread-safe like `FileMemo`."""

    def __init__(self, memo: FileMemo, engine: Engine) -> None:
        self._memo, self._engine = memo, engine
        self._known: dict[tuple[bytes | None, ...], _Known] = {}
        self._checks: dict[tuple[bytes | None, ...], object] = {}
        self._search: BoundedMemo[tuple[object, ...], SearchAnswer] = BoundedMemo(_MAX_REMEMBERED)
        self._asking = [threading.Lock() for _ in range(_MAX_ASKING)]

    def identify(
        self,
        compiler: bytes,
        env: Mapping[bytes, bytes],
        is_cancelled: Callable[[], bool],
        cwd: bytes = b"/",
    ) -> Identity | Bypass:
        """Return the identity, from memory while all its files are unchanged.

        Runs the compiler otherwise. `compiler` is an absolute path.
        """
        if has_unnameable_directory(env, cwd):
            return Bypass(BypassReason.LOADER)
        env = loader_environment(env, cwd)
        key = (compiler, *(env.get(name) for name in _IDENTITY_ENV))
        before = self._known.get(key)
        if before is not None and self._still_holds(key, before):
            return before.identity
        # A build begins with many compiles at once: one of them asks.
        with self._asking[hash(key) % _MAX_ASKING]:
            known = self._known.get(key)
            if known is not None and known is not before and self._still_holds(key, known):
                return known.identity
            return self._identify(key, _CompilerProbe(self._memo, compiler, env, is_cancelled))

    def _identify(self, key: tuple[bytes | None, ...], probe: _CompilerProbe) -> Identity | Bypass:
        found = probe.probe_compiler()
        if isinstance(found, Bypass):
            return found
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
            self._checks.clear()
        self._known[key] = found
        return found.identity

    def pin(
        self,
        identity: Identity,
        compiler: bytes,
        env: Mapping[bytes, bytes],
        pins: Pins,
        cwd: bytes = b"/",
    ) -> None:
        """Pin every file, name and listing that this identity was made from.

        Raises:
            NotPinnedError: a stat cannot prove some of them, or the compiler is another one now.
        """
        env = loader_environment(env, cwd)
        known = self._known.get((compiler, *(env.get(name) for name in _IDENTITY_ENV)))
        if known is None or known.identity != identity:
            raise NotPinnedError
        known.evidence.pin(pins)

    def search_path(
        self,
        identity: Identity,
        family: CompilerFamily,
        compiler: bytes,
        invocation: Invocation,
        env: Mapping[bytes, bytes],
        cwd: bytes,
    ) -> tuple[bytes, ...]:
        """Return the compiler's own include directories, including those that do not exist yet.

        Raises:
            OSError: the compiler did not run or did not print its search path.
        """
        return self._ask_search(identity, family, compiler, invocation, env, cwd).directories

    def config_names(
        self,
        identity: Identity,
        family: CompilerFamily,
        compiler: bytes,
        invocation: Invocation,
        env: Mapping[bytes, bytes],
        cwd: bytes,
    ) -> tuple[bytes, ...]:
        """Return the configuration files of a target other than the identity's (`-m32`).

        Raises:
            OSError: the compiler did not run or did not print its search path.
        """
        if not identity.config_directories or not invocation.search_arguments:
            return ()
        target = self._ask_search(identity, family, compiler, invocation, env, cwd).target
        if target == identity.target:
            return ()
        return config_names(identity.config_directories, target)

    def _ask_search(
        self,
        identity: Identity,
        family: CompilerFamily,
        compiler: bytes,
        invocation: Invocation,
        env: Mapping[bytes, bytes],
        cwd: bytes,
    ) -> SearchAnswer:
        arguments = invocation.search_arguments
        paths = tuple(env.get(name) for name in family.search_variables)
        roots = (absolute(cwd, root) for root in family.installation_roots(invocation))
        trees = tuple(look_at_tree(root).digest for root in roots)
        is_relative = may_name_relative(arguments, (*paths, env.get(b"LIBRARY_PATH")))
        place = cwd if is_relative else b""
        key = (identity.digest, compiler, invocation.language, arguments, paths, place, trees)
        known = self._search.get(key)
        if known is not None:
            return known
        with self._asking[hash(key) % _MAX_ASKING]:
            known = self._search.get(key)
            if known is None:
                known = search_of(family, compiler, invocation, env, cwd)
                if place or all(path.startswith(b"/") for path in known.directories):
                    self._search[key] = known
            return known

    def _still_holds(self, key: tuple[bytes | None, ...], known: _Known) -> bool:
        """Check every file and name; usually with one call of the engine."""
        checks = self._checks.get(key)
        if checks is not None:
            if self._engine.replay(checks, _NOBODY) == Outcome.DONE:
                return True
            self._checks.pop(key, None)
        if not known.evidence.holds(self._memo):
            return False
        pins = Pins(self._memo)
        with contextlib.suppress(NotPinnedError, ValueError):
            known.evidence.pin(pins)
            plan = Plan(checks=pins.checks(), outputs=(), mode=0, source=(0, 0), answer=b"")
            self._checks[key] = self._engine.prepare(plan)
        return True


class _CompilerProbe:
    """Runs one compiler to find the programs and files that decide its output."""

    def __init__(
        self,
        memo: FileMemo,
        compiler: bytes,
        env: Mapping[bytes, bytes],
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._memo, self._compiler, self._is_cancelled = memo, compiler, is_cancelled
        self._env = {**without_cl_variables(env), b"LC_ALL": b"C"}
        self._files: dict[bytes, bytes] = {}
        self._absent: dict[bytes, None] = {}
        self._tried: dict[bytes, None] = {}
        self._began_ns = memo.now_ns()
        self._skipped: dict[bytes, Skipped] = {}
        self._own_directories: tuple[bytes, ...] = ()
        self._target = b""

    def probe_compiler(self) -> _Known | Bypass:
        real = os.path.realpath(self._compiler)
        refusal = refusal_of_driver(self._compiler, real)
        if refusal is not None:
            return refusal
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
                return _Known(Bypass(BypassReason.WRAPPER), evidence)
        except OSError:
            return Bypass(BypassReason.COMPILER_UNREADABLE)
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
            lists,
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
        return _Known(
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
