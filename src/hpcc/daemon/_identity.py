"""Which compiler this really is: the content of every program and file that decides its output.

Asked of the compiler once, and again as soon as one of those files changes by stat.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.compilers import Bypass, Invocation, is_cxx_driver
from hpcc.daemon._fields import encode_fields
from hpcc.daemon._files import FileMemo
from hpcc.daemon._replay import NotPinnedError, Pins
from hpcc.daemon._tools import ask

_ELF: Final = b"\x7fELF"
_WRAPPERS: Final = frozenset(
    {b"ccache", b"sccache", b"distcc", b"icecc", b"buildcache", b"fastbuild", b"hpcc", b"recc"}
)
_PROGRAMS: Final = (b"cc1", b"cc1plus", b"as", b"collect2", b"objcopy")
# What changes the programs a driver finds.
_IDENTITY_ENV: Final = (b"PATH", b"COMPILER_PATH", b"GCC_EXEC_PREFIX", b"LD_LIBRARY_PATH")
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


@dataclass(frozen=True, slots=True)
class Identity:
    """A compiler by content. `digest` covers all that was found.

    `is_clang` tells the family, `major` the version's first number.
    """

    digest: bytes
    is_clang: bool
    major: int


@dataclass(frozen=True, slots=True)
class _Known:
    identity: Identity
    files: tuple[tuple[bytes, bytes], ...]
    absent: tuple[bytes, ...]
    listings: tuple[tuple[bytes, frozenset[bytes]], ...]


class Compilers:
    """Identities and search paths of the compilers met so far. Thread-safe like `FileMemo`."""

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        self._known: dict[tuple[bytes | None, ...], _Known] = {}
        self._search: dict[tuple[object, ...], tuple[bytes, ...]] = {}

    def identify(
        self, compiler: bytes, env: Mapping[bytes, bytes], is_cancelled: Callable[[], bool]
    ) -> Identity | Bypass:
        """Return the identity, from memory while every file of it is unchanged."""
        key = (compiler, *(env.get(name) for name in _IDENTITY_ENV))
        known = self._known.get(key)
        if known is not None and self._still_holds(known):
            return known.identity
        found = _Question(self._memo, compiler, env, is_cancelled).answer()
        if isinstance(found, Bypass):
            return found
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
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
        pins.files(known.files)
        pins.absent(known.absent)
        pins.listings(known.listings)

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
        arguments = invocation.search_arguments
        language = invocation.language.value
        paths = tuple(env.get(name) for name in _INCLUDE_ENV)
        key = (identity.digest, compiler, language, arguments, paths, cwd)
        known = self._search.get(key)
        if known is not None:
            return known
        argv = [compiler, *arguments, b"-x", language, b"-v", b"-E", b"/dev/null", b"-o"]
        answer = ask([*argv, b"/dev/null"], env={**env, b"LC_ALL": b"C"}, cwd=cwd)
        found = _search_lines(answer.stderr)
        # -nostdinc leaves an empty list; anything else is a compiler we do not understand.
        if answer.exit_code != 0 or not (found or b"-nostdinc" in arguments):
            raise OSError("the compiler did not tell its search path")
        if len(self._search) >= _MAX_REMEMBERED:
            self._search.clear()
        self._search[key] = found
        return found

    def _still_holds(self, known: _Known) -> bool:
        digest = self._memo.digest
        for path, expected in known.files:
            if digest(path) != expected:
                return False
        if any(map(os.path.lexists, known.absent)):
            return False
        return all(_directories(self._memo, path) == names for path, names in known.listings)


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
        self._env = {**env, b"LC_ALL": b"C"}
        self._files: dict[bytes, bytes] = {}
        self._absent: dict[bytes, None] = {}

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
            self._add_program(real)
            self._add(self._compiler)  # as spelled: a link to another compiler has other content
            for name in (b"as", b"objcopy") if is_clang else _PROGRAMS:
                self._add_named(name)
        except OSError:
            return Bypass("compiler-unreadable")
        for match in _SPECS.finditer(about):
            self._add(match[1])
        listings = []
        for parent in {m[1].rpartition(b"/")[0] for m in _CANDIDATE.finditer(about)}:
            names = _directories(self._memo, parent)
            if names is None:
                return Bypass("compiler-unreadable")
            listings.append((parent, names))
        if b"" in self._files.values():
            return Bypass("compiler-unreadable")
        files = tuple(sorted(self._files.items()))
        parts = [about, *(part for file in files for part in file), *self._absent]
        digest = hashlib.sha256(encode_fields(parts)).digest()
        return _Known(
            Identity(digest, is_clang, int(version[1])), files, tuple(self._absent), tuple(listings)
        )

    def _add(self, path: bytes) -> None:
        self._files[path] = self._memo.digest(path) or b""

    def _add_named(self, name: bytes) -> None:
        argv = [self._compiler, b"-print-prog-name=" + name]
        found = ask(argv, env=self._env, cwd=b"/").stdout.strip()
        if found.startswith(b"/"):
            self._add_program(found)
            return
        for directory in self._env.get(b"PATH", b"").split(b":"):
            candidate = (directory or b".") + b"/" + name
            if os.access(candidate, os.X_OK):
                self._add_program(candidate)
                return
            self._absent[candidate] = None

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
