"""Identifies an nvcc by its own files, the programs that it runs, and the compiler inside of it.

Problem: nvcc decides by options, variables, its profile and PATH which programs it runs, among them
the host compiler. It gives them another PATH and LD_LIBRARY_PATH than its own.

Rule: nvcc itself shows its commands (`--dryrun`), with the options that choose programs. The
identity covers nvcc, its profile, the programs of the toolkit, their libraries, libdevice, the
shell, that answer, and the identity of the host compiler, under both environments.

Example: `nvcc -ccbin g++-14` shows `g++-14` and a PATH that begins with the toolkit. The first
g++-14 there is asked as each GCC is; a g++-14 that appears earlier is another compiler.

What must never happen: the dry run names another program than the compile runs. So a bare name must
lead to the same file with and without the toolkit's directories, and must be no directory here, and
everything that a shell would interpret is refused.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.tools import ask
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.host.compiler_probe import Identity
from hpcc.cache.host.driver_answers import refusal_of_driver
from hpcc.cache.host.evidence import Evidence, directories_in
from hpcc.cache.host.loader import (
    DIRECTING_FILES,
    Skipped,
    libraries_of,
    loader_environment,
    look_at_skipped,
)
from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.nvcc.invocation import APPEND, HOST, PREPEND, SECOND_HEADERS
from hpcc.compilers.nvcc.options import SAFE
from hpcc.compilers.nvcc.probe import (
    ASKED,
    MARK,
    PROFILE,
    TOOLS,
    DryRun,
    is_plain_profile,
    read_dry_run,
)
from hpcc.compilers.spec.table import GCC_MAJORS, Bypass
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.bypass import BypassReason

_SHELL: Final = b"/bin/sh"
_MAX_REMEMBERED: Final = 1024
_MAX_ASKING: Final = 16
_MAX_PROFILE_BYTES: Final = 64 << 10
_UNKNOWN: Final = Bypass(BypassReason.NVCC_HOST)
# nvcc writes the working directory between double quotes.
_ODD_DIRECTORY: Final = re.compile(rb'["$`\\\n!]')
_HOST_NAME: Final = re.compile(rb"/[\w@%+:./-]*|[\w+.-]+")


class Identify(Protocol):
    """`Compilers.identify`."""

    def __call__(
        self,
        compiler: bytes,
        env: Mapping[bytes, bytes],
        is_cancelled: Callable[[], bool],
        cwd: bytes = b"/",
    ) -> Identity | Bypass: ...


@dataclass(frozen=True, slots=True)
class _Known:
    """What a probe found. `hosts` are the host compiler's path and each environment of it."""

    digest: bytes
    evidence: Evidence
    hosts: tuple[tuple[bytes, Mapping[bytes, bytes]], ...]
    watched: tuple[bytes, ...]


class NvccCompilers:
    """Identities of the nvccs met so far. Thread-safe like `FileMemo`."""

    def __init__(self, memo: FileMemo, identify: Identify) -> None:
        self._memo, self._identify = memo, identify
        self._known: BoundedMemo[tuple[object, ...], _Known] = BoundedMemo(_MAX_REMEMBERED)
        self._asking = [threading.Lock() for _ in range(_MAX_ASKING)]

    def identify(
        self,
        request: CompileRequest,
        family: CompilerFamily,
        question: tuple[bytes, ...],
        is_cancelled: Callable[[], bool],
    ) -> Identity | Bypass:
        """Return the identity, from memory while all files are unchanged.

        `question` are the arguments with which nvcc shows its host compiler.
        """
        if not _is_quotable(request):
            return _UNKNOWN
        # The host compiler is asked under these variables, too.
        values = (item for item in request.env.items() if not item[0].startswith(b"HPCC_"))
        key = (request.compiler, question, request.cwd, *sorted(values))
        # The host compiler is identified under another lock, which never waits for this one.
        with self._asking[hash(key) % _MAX_ASKING]:
            known = self._known.get(key)
            if known is None or not known.evidence.holds(self._memo):
                try:
                    found = _Probe(self._memo, request, question).probe()
                except OSError:
                    return Bypass(BypassReason.COMPILER_UNREADABLE)
                if isinstance(found, Bypass):
                    return found
                known = self._known[key] = found
        # They would be read in place of the toolkit's.
        if any(map(os.path.lexists, known.watched)):
            return _UNKNOWN
        return self._with_host(known, request, family, is_cancelled)

    def _with_host(
        self,
        known: _Known,
        request: CompileRequest,
        family: CompilerFamily,
        is_cancelled: Callable[[], bool],
    ) -> Identity | Bypass:
        hosts: list[Identity] = []
        for compiler, env in known.hosts:
            host = self._identify(compiler, env, is_cancelled, request.cwd)
            if isinstance(host, Bypass):
                return host
            hosts.append(host)
        first = hosts[0]
        if first.family is not GNU or first.major not in GCC_MAJORS:
            return _UNKNOWN
        parts = (known.digest, *(host.digest for host in hosts))
        names = (*first.relative_names, *known.watched)
        return replace(
            first,
            digest=hashlib.sha256(encode_fields(parts)).digest(),
            family=family,
            lists_assembler_files=False,
            relative_names=names,
        )


def _is_quotable(request: CompileRequest) -> bool:
    """Return whether a shell takes the names in nvcc's commands as they are."""
    words = (request.compiler, *filter(None, (request.env.get(b"TMPDIR"),)))
    host = request.env.get(HOST, b"")
    return (
        all(map(SAFE.fullmatch, words))
        and not _ODD_DIRECTORY.search(request.cwd)
        and (not host or _HOST_NAME.fullmatch(host) is not None)
    )


class _Probe:
    def __init__(
        self, memo: FileMemo, request: CompileRequest, question: tuple[bytes, ...]
    ) -> None:
        self._memo, self._question = memo, question
        self._compiler, self._cwd = request.compiler, request.cwd
        plain = {n: v for n, v in request.env.items() if n not in {PREPEND, APPEND}}
        self._env = loader_environment(plain, request.cwd)
        self._files: dict[bytes, bytes] = {}
        self._absent: dict[bytes, None] = {}
        self._skipped: dict[bytes, Skipped] = {}
        self._began_ns = memo.now_ns()

    def probe(self) -> _Known | Bypass:
        """Ask the nvcc.

        Raises:
            OSError: a program could not be started or read.
        """
        home, real = os.path.dirname(self._compiler), os.path.realpath(self._compiler)
        refusal = refusal_of_driver(self._compiler, real)
        if refusal is not None:
            return refusal
        if not _holds_mark(real):
            return Bypass(BypassReason.WRAPPER)
        profile = os.path.join(home, PROFILE)
        self._add(profile)
        with open(profile, "rb") as file:
            text = file.read(_MAX_PROFILE_BYTES)
        if len(text) == _MAX_PROFILE_BYTES or not is_plain_profile(text):
            return Bypass(BypassReason.CONFIG_FILE)
        self._add_program(self._compiler, self._env)
        self._add_program(real, self._env)
        answer = ask([self._compiler, *self._question], env=self._env, cwd=self._cwd)
        shown = read_dry_run(answer.stderr)
        if answer.exit_code != 0 or shown is None or shown.version not in ASKED:
            return _UNKNOWN
        if shown.variables.get(b"_HERE_") != home:
            return _UNKNOWN
        inner = self._inner_environment(shown)
        host = self._host(shown, inner)
        if host is None:
            return _UNKNOWN
        self._add(host)
        self._add_toolkit(shown, inner)
        top = shown.variables.get(b"TOP", b"")
        listings = tuple(self._listings(top, os.path.join(top, b"targets")))
        # The host compiler reads generated code there.
        temporary = dict.fromkeys((self._env.get(b"TMPDIR") or b"/tmp", b"/tmp"))
        watched = tuple(
            os.path.join(absolute(self._cwd, d), n) for d in temporary for n in SECOND_HEADERS
        )
        if b"" in self._files.values():
            return Bypass(BypassReason.COMPILER_UNREADABLE)
        files = tuple(sorted(self._files.items()))
        parts = [shown.text, host, *(p for f in files for p in f)]
        for path in DIRECTING_FILES:
            digest = self._memo.digest(path)
            if digest is None:
                self._absent[path] = None
            else:
                files = (*files, (path, digest))
        skipped = tuple(self._skipped.values())
        evidence = Evidence(files, tuple(self._absent), listings, (), skipped)
        hosts = ((host, self._env), (host, inner))
        return _Known(hashlib.sha256(encode_fields(parts)).digest(), evidence, hosts, watched)

    def _inner_environment(self, shown: DryRun) -> dict[bytes, bytes]:
        """Return the variables of the programs that nvcc runs."""
        names = (b"PATH", b"LD_LIBRARY_PATH")
        changed = {name: shown.variables[name] for name in names if name in shown.variables}
        return dict(loader_environment({**self._env, **changed}, self._cwd))

    def _host(self, shown: DryRun, inner: Mapping[bytes, bytes]) -> bytes | None:
        """Return the path of the host compiler; None if it is not certain."""
        if shown.host.startswith(b"/"):
            return shown.host
        if b"/" in shown.host:
            return None
        here = absolute(self._cwd, shown.host)
        if os.path.lexists(here):
            return None  # nvcc takes a directory of that name
        self._absent[here] = None
        first, second = (self._which(shown.host, env) for env in (self._env, inner))
        return first if first == second else None

    def _which(self, name: bytes, env: Mapping[bytes, bytes]) -> bytes | None:
        for directory in env.get(b"PATH", b"").split(b":"):
            if not directory.startswith(b"/"):
                return None  # the working directory: an unset PATH leaves an empty part
            path = os.path.join(directory, name)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
            if not os.path.lexists(path):
                self._absent[path] = None
        return None

    def _add_toolkit(self, shown: DryRun, inner: Mapping[bytes, bytes]) -> None:
        home, variables = os.path.dirname(self._compiler), shown.variables
        cicc = os.path.join(variables.get(b"CICC_PATH") or b"/", b"cicc")
        self._add_program(cicc, inner)
        for name in TOOLS:
            found = self._which(name, inner)
            if found is None and name == b"nvlink":
                continue  # only a link needs it
            self._add_program(found or os.path.join(home, name), inner)
        self._add_program(_SHELL, inner)
        library = variables.get(b"NVVMIR_LIBRARY_DIR", b"")
        for name in sorted(os.listdir(library)):
            self._add(os.path.join(library, name))

    def _listings(self, *directories: bytes) -> Iterator[tuple[bytes, frozenset[bytes]]]:
        for path in directories:
            names = directories_in(self._memo, path)
            if names is not None:
                yield path, names
            else:
                self._absent[path] = None

    def _add(self, path: bytes) -> None:
        self._files[path] = self._memo.digest(path) or b""

    def _add_program(self, path: bytes, env: Mapping[bytes, bytes]) -> None:
        self._add(path)
        libraries = libraries_of(path, env, b"--version")
        for library in libraries.loaded:
            self._add(library)
        self._absent.update(dict.fromkeys(libraries.tried))
        for skipped in libraries.skipped:
            self._skipped[skipped] = look_at_skipped(skipped, self._memo, self._began_ns)


def _holds_mark(path: bytes) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(MARK) >= 0
