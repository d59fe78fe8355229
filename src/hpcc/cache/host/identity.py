"""Which compiler this really is: the content of every program and file that decides its output.

Asked of the compiler once, and again as soon as one of those files changes by stat.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.tools import ask
from hpcc.cache.host import msvc
from hpcc.cache.host.driver_files import (
    TARGET,
    config_directories,
    config_names,
    lists_its_files,
    named_target,
    program_directories,
    specs_names,
)
from hpcc.cache.replay.engine import Engine, Outcome, Plan
from hpcc.cache.replay.replay import NotPinnedError, Pins
from hpcc.compilers.invocation.invocation import Invocation, is_cxx_driver
from hpcc.compilers.spec.table import Bypass

_ELF: Final = b"\x7fELF"
_WRAPPERS: Final = frozenset(
    {b"ccache", b"sccache", b"distcc", b"icecc", b"buildcache", b"fastbuild", b"hpcc", b"recc"}
)
_PROGRAMS: Final = (b"cc1", b"cc1plus", b"as", b"collect2", b"objcopy")
_CLANG_PROGRAMS: Final = (b"as", b"objcopy")
_MAX_DRIVER_FILE_BYTES: Final = 1 << 20
# What changes the programs a driver finds.
_IDENTITY_ENV: Final = (
    b"PATH",
    b"COMPILER_PATH",
    b"GCC_EXEC_PREFIX",
    b"LD_LIBRARY_PATH",
    b"LIBRARY_PATH",  # GCC reads specs there
)
_INCLUDE_ENV: Final = (
    b"CPATH",
    b"C_INCLUDE_PATH",
    b"CPLUS_INCLUDE_PATH",
    b"OBJC_INCLUDE_PATH",
    b"OBJCPLUS_INCLUDE_PATH",
)
_CLANG: Final = re.compile(rb"^(?:.* )?clang version (\d{1,4})", re.MULTILINE)
_GCC: Final = re.compile(rb"^gcc version (\d{1,4})", re.MULTILINE)
_SPECS: Final = re.compile(rb"^(?:Reading specs from|Configuration file:) (/.*)$", re.MULTILINE)
_CANDIDATE: Final = re.compile(rb"^Found candidate GCC installation: (/.*)$", re.MULTILINE)
_LIBRARY: Final = re.compile(rb"(?:=> |^\s+)(/\S+) \(0x", re.MULTILINE)
_IGNORED: Final = re.compile(
    rb'^ignoring (?:nonexistent|duplicate) directory "(.*)"$', re.MULTILINE
)
_MAX_REMEMBERED: Final = 1024
_NOBODY: Final = -1  # to answer


@dataclass(frozen=True, slots=True)
class Identity:
    """A compiler by content. `digest` covers all that was found.

    `is_clang` tells the family, `major` the version's first number. `lists_assembler_files`: its
    `as` understands `--MD` and names there what `.incbin` and `.include` read. `target` and
    `config_directories` are Clang's: what its configuration files are named after, and where.
    `relative_names` are of specs files in relative parts of LIBRARY_PATH.
    """

    digest: bytes
    is_clang: bool
    major: int
    lists_assembler_files: bool = False
    target: bytes = b""
    config_directories: tuple[bytes, ...] = ()
    relative_names: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    identity: Identity
    files: tuple[tuple[bytes, bytes], ...]
    absent: tuple[bytes, ...]
    listings: tuple[tuple[bytes, frozenset[bytes]], ...]


class _Search(NamedTuple):
    directories: tuple[bytes, ...]
    target: bytes


class Compilers:
    """Identities and search paths of the compilers met so far. Thread-safe like `FileMemo`."""

    def __init__(self, memo: FileMemo, engine: Engine) -> None:
        self._memo, self._engine = memo, engine
        self._known: dict[tuple[bytes | None, ...], _Known] = {}
        self._checks: dict[tuple[bytes | None, ...], object] = {}
        self._search: dict[tuple[object, ...], _Search] = {}

    def identify(
        self, compiler: bytes, env: Mapping[bytes, bytes], is_cancelled: Callable[[], bool]
    ) -> Identity | Bypass:
        """Return the identity, from memory while every file of it is unchanged."""
        key = (compiler, *(env.get(name) for name in _IDENTITY_ENV))
        known = self._known.get(key)
        if known is not None and self._still_holds(key, known):
            return known.identity
        found = _Question(self._memo, compiler, env, is_cancelled).answer()
        if isinstance(found, Bypass):
            return found
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
            self._checks.clear()
        self._known[key] = found
        return found.identity

    def pin(
        self, identity: Identity, compiler: bytes, env: Mapping[bytes, bytes], pins: Pins
    ) -> None:
        """Pin everything this identity was made from.

        Raises:
            NotPinnedError: some of it cannot be told by a stat, or the compiler is another now.
        """
        known = self._known.get((compiler, *(env.get(name) for name in _IDENTITY_ENV)))
        if known is None or known.identity != identity:
            raise NotPinnedError
        _pin(known, pins)

    def search_path(
        self,
        identity: Identity,
        compiler: bytes,
        invocation: Invocation,
        env: Mapping[bytes, bytes],
        cwd: bytes,
    ) -> tuple[bytes, ...]:
        """Return the compiler's own include directories, those that do not exist yet too.

        Raises:
            OSError: the compiler could not be asked.
        """
        return self._ask_search(identity, compiler, invocation, env, cwd).directories

    def config_names(
        self,
        identity: Identity,
        compiler: bytes,
        invocation: Invocation,
        env: Mapping[bytes, bytes],
        cwd: bytes,
    ) -> tuple[bytes, ...]:
        """Name the configuration files of another target than the identity's (`-m32`).

        Raises:
            OSError: the compiler could not be asked.
        """
        if not identity.config_directories or not invocation.search_arguments:
            return ()
        target = self._ask_search(identity, compiler, invocation, env, cwd).target
        if target == identity.target:
            return ()
        return config_names(identity.config_directories, target)

    def _ask_search(
        self,
        identity: Identity,
        compiler: bytes,
        invocation: Invocation,
        env: Mapping[bytes, bytes],
        cwd: bytes,
    ) -> _Search:
        arguments = invocation.search_arguments
        language = invocation.language.value
        is_msvc = msvc.is_of(invocation)
        names = (*_INCLUDE_ENV, *(sorted(msvc.MSVC_ENV) if is_msvc else ()))
        paths = tuple(env.get(name) for name in names)
        key = (identity.digest, compiler, language, arguments, paths, cwd)
        known = self._search.get(key)
        if known is not None:
            return known
        argv = [compiler, *arguments, b"-x", language, b"-v", b"-E", b"/dev/null", b"-o"]
        if is_msvc:
            argv, env = (
                [compiler, *arguments, *msvc.question(invocation)],
                msvc.own_environment(env),
            )
        else:
            argv.append(b"/dev/null")
        answer = ask(argv, env={**env, b"LC_ALL": b"C"}, cwd=cwd)
        found = _search_lines(answer.stderr)
        # -nostdinc leaves an empty list; anything else is a compiler we do not understand.
        if answer.exit_code != 0 or not (found or b"-nostdinc" in arguments):
            raise OSError("the compiler did not tell its search path")
        target = TARGET.search(answer.stderr)
        if len(self._search) >= _MAX_REMEMBERED:
            self._search.clear()
        known = self._search[key] = _Search(found, b"" if target is None else target[1])
        return known

    def _still_holds(self, key: tuple[bytes | None, ...], known: _Known) -> bool:
        """Look at every file and name; in one call of the engine, as a rule."""
        checks = self._checks.get(key)
        if checks is not None:
            if self._engine.replay(checks, _NOBODY) == Outcome.DONE:
                return True
            self._checks.pop(key, None)
        digest = self._memo.digest
        for path, expected in known.files:
            if digest(path) != expected:
                return False
        if any(map(os.path.lexists, known.absent)):
            return False
        if any(_directories(self._memo, path) != names for path, names in known.listings):
            return False
        pins = Pins(self._memo)
        with contextlib.suppress(NotPinnedError, ValueError):
            _pin(known, pins)
            plan = Plan(checks=pins.checks(), outputs=(), mode=0, source=(0, 0), answer=b"")
            self._checks[key] = self._engine.prepare(plan)
        return True


def _pin(known: _Known, pins: Pins) -> None:
    """Pin all that an identity was made from.

    Raises:
        NotPinnedError: some of it cannot be told by a stat.
    """
    pins.files(known.files)
    pins.absent(known.absent)
    pins.listings(known.listings)


class _Question:
    """One round of questions to one compiler."""

    def __init__(
        self,
        memo: FileMemo,
        compiler: bytes,
        env: Mapping[bytes, bytes],
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._memo, self._compiler, self._is_cancelled = memo, compiler, is_cancelled
        self._env = {**msvc.own_environment(env), b"LC_ALL": b"C"}
        self._files: dict[bytes, bytes] = {}
        self._absent: dict[bytes, None] = {}
        self._own_directories: tuple[bytes, ...] = ()
        self._target = b""

    def answer(self) -> _Known | Bypass:
        real = os.path.realpath(self._compiler)
        refusal = _refuse(self._compiler, real)
        if refusal is not None:
            return refusal
        try:
            about = ask([self._compiler, b"-v"], env=self._env, cwd=b"/").stderr
            is_clang = bool(_CLANG.search(about))
            version = _CLANG.search(about) or _GCC.search(about)
            if version is None:
                return Bypass("unknown-compiler")
            searched = ask([self._compiler, b"-print-search-dirs"], env=self._env, cwd=b"/").stdout
            self._own_directories = program_directories(searched)
            self._target = target[1] if (target := TARGET.search(about)) else b""
            self._add_program(real)
            self._add(self._compiler)  # as spelled: a link to another compiler has other content
            programs = {n: self._add_named(n) for n in (_CLANG_PROGRAMS if is_clang else _PROGRAMS)}
            driver_files = self._driver_files(about, searched, real, is_clang=is_clang)
            assembler = programs[b"as"]
            lists = assembler is not None and lists_its_files(assembler, self._env)
        except OSError:
            return Bypass("compiler-unreadable")
        for match in _SPECS.finditer(about):
            driver_files[match[1]] = None
        if not self._add_driver_files(driver_files):
            return Bypass("config-file")
        listings = self._candidates(about)
        if listings is None or b"" in self._files.values():
            return Bypass("compiler-unreadable")
        files = tuple(sorted(self._files.items()))
        parts = [about, *(part for file in files for part in file), *self._absent]
        identity = Identity(
            hashlib.sha256(encode_fields(parts)).digest(),
            is_clang,
            int(version[1]),
            lists,
            self._target,
            config_directories(about) if is_clang else (),
            tuple(name for name in driver_files if not name.startswith(b"/")),
        )
        return _Known(identity, files, tuple(self._absent), listings)

    def _driver_files(
        self, about: bytes, searched: bytes, real: bytes, *, is_clang: bool
    ) -> dict[bytes, None]:
        """Name the files beside the driver that it reads if they are there."""
        if not is_clang:
            paths = self._env.get(b"LIBRARY_PATH", b"")
            return dict.fromkeys(specs_names(about, searched, paths))
        default = TARGET.search(about)
        targets = (default and default[1], named_target(self._compiler), named_target(real))
        where = config_directories(about)
        return dict.fromkeys(n for t in targets if t is not None for n in config_names(where, t))

    def _add_driver_files(self, names: Iterable[bytes]) -> bool:
        """Add those that are there to the identity; False if one of them names further files."""
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

    def _candidates(self, about: bytes) -> tuple[tuple[bytes, frozenset[bytes]], ...] | None:
        """Return the directories in which Clang found the installations of GCC to choose from."""
        listings = []
        for parent in {m[1].rpartition(b"/")[0] for m in _CANDIDATE.finditer(about)}:
            names = _directories(self._memo, parent)
            if names is None:
                return None
            listings.append((parent, names))
        return tuple(listings)

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
            self._absent[candidate] = None
        return None

    def _earlier(self, name: bytes, found: bytes) -> Iterator[bytes]:
        """Yield where the driver looks for a program before it takes the one it has found."""
        for directory in self._own_directories:
            for base in (self._target + b"-" + name, name):
                yield directory.rstrip(b"/") + b"/" + base
            if os.path.dirname(found) == directory.rstrip(b"/"):
                return

    def _add_program(self, path: bytes) -> None:
        """Add a program and the libraries the loader gives it: Debian's clang is all library."""
        if path in self._files:
            return
        self._add(path)
        env = {**self._env, b"LD_TRACE_LOADED_OBJECTS": b"1"}
        for match in _LIBRARY.finditer(ask([path, b"--version"], env=env, cwd=b"/").stdout):
            self._add(match[1])


def _refuse(compiler: bytes, real: bytes) -> Bypass | None:
    names = {compiler.rpartition(b"/")[2], real.rpartition(b"/")[2]}
    if names & _WRAPPERS:
        return Bypass("wrapper")
    try:
        with open(real, "rb") as file:
            if file.read(len(_ELF)) != _ELF:
                return Bypass("wrapper-script")
    except OSError:
        return Bypass("compiler-unreadable")
    # A name that says C and a driver that is C++, or a name like `cc-wrapper-1`: not for us.
    real_is_cxx = is_cxx_driver(real)
    if real_is_cxx is not None and is_cxx_driver(compiler) is not real_is_cxx:
        # clang++ is a link to clang and looks at the name it was called by.
        return None if real.rpartition(b"/")[2].startswith(b"clang") else Bypass("unknown-compiler")
    return None


def _directories(memo: FileMemo, path: bytes) -> frozenset[bytes] | None:
    listing = memo.listing(path)
    return None if listing is None else listing.directories


def _search_lines(text: bytes) -> tuple[bytes, ...]:
    found = [m[1] for m in _IGNORED.finditer(text)]
    is_inside = False
    for line in text.splitlines():
        if line.startswith(b"#include ") and line.endswith(b"search starts here:"):
            is_inside = True
        elif line.startswith(b"End of search list"):
            break
        elif is_inside and line.startswith(b" "):
            found.append(line[1:].removesuffix(b" (framework directory)"))
    return tuple(dict.fromkeys(d for d in found if d))
