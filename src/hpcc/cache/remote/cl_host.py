"""Asks a cl or clang-cl of this machine, for a client on Windows. Not yet run there."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, NamedTuple, Protocol

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.tools import ProgramOutput
from hpcc.cache.host.driver_answers import search_lines
from hpcc.cache.host.host_toolchains import HostToolchain
from hpcc.compilers.invocation.depfile import MAX_DEPFILE_BYTES
from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.invocation.invocation import Invocation, Language
from hpcc.compilers.msvc.deps import (
    PROBE_FILES,
    learn_show_includes,
    read_show_includes,
    read_source_dependencies,
)
from hpcc.compilers.msvc.family import (
    MsvcFamily,
    flags_of_reading,
    msvc_family,
    msvc_family_that_answers,
    without_outputs,
)
from hpcc.compilers.msvc.flags import DEPFILE, TARGETS
from hpcc.compilers.msvc.probe import VERSION_SOURCE, program_name, read_cl
from hpcc.compilers.spec.drivers import without_cl_variables
from hpcc.compilers.spec.response import MAX_RESPONSE_BYTES
from hpcc.compilers.spec.table import Bypass, Effect, Flag
from hpcc.core import (
    CallerError,
    WindowsPath,
    WindowsPathError,
    encode_toolchains,
    parse_windows_path,
)
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.fallback import FallbackReason

Version = tuple[int, ...]
_MAX_REMEMBERED: Final = 256
_REPORT: Final = "files.json"
_DEPFILE: Final = "files.d"
_SILENT: Final = b"-nologo"
_INSTALLED: Final = re.compile(rb"^InstalledDir: (.+)$", re.MULTILINE)


class ClSearch(NamedTuple):
    """Where a clang-cl is installed by its own answer, "" if it does not say, and its search."""

    installed_in: str
    directories: tuple[bytes, ...]


class LocalMachine(Protocol):
    """Access to the machine. Paths have the form of Windows.

    `encoding` is the code page of compilers' output. `run` and `scratch` raise OSError.
    """

    encoding: str

    def run(self, argv: Sequence[bytes], env: Mapping[bytes, bytes], cwd: bytes) -> ProgramOutput:
        """Run a program to its end, with a time limit."""
        ...

    def scratch(self) -> AbstractContextManager[str]:
        """Return an empty directory that is deleted at the end."""
        ...

    def read(self, path: str, limit: int) -> bytes | None:
        """Read a regular file; None if it is missing or longer than `limit` bytes."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write a file atomically.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def real(self, path: str) -> str:
        """Return a path with links, junctions, `subst` and short names resolved."""
        ...

    def state(self, path: str) -> Hashable:
        """Return a value that changes when a file is replaced; None if it is missing."""
        ...


def read_command(
    machine: LocalMachine, request: CompileRequest, cwd: WindowsPath
) -> tuple[MsvcFamily, Invocation] | Bypass:
    """Return what a command line of cl or clang-cl means, with CL and response files expanded."""
    family = msvc_family(request.compiler)
    arguments = expanded_arguments(machine, request, cwd)
    if isinstance(arguments, Bypass):
        return arguments
    found = family.read(request.compiler, arguments)
    return found if isinstance(found, Bypass) else (family, found)


def expanded_arguments(
    machine: LocalMachine, request: CompileRequest, cwd: WindowsPath
) -> tuple[bytes, ...] | Bypass:
    """Return the arguments of a command line with CL and response files expanded."""

    def read(name: bytes) -> bytes | None:
        try:
            path = parse_windows_path(name.decode(), cwd=cwd)
        except (WindowsPathError, UnicodeDecodeError):
            return None
        return machine.read(str(path), MAX_RESPONSE_BYTES)

    family = msvc_family(request.compiler)
    return family.expand(request.compiler, request.argv[1:], request.env, read)


def _installed_in(text: bytes) -> str:
    """Return the directory in the output of `-v`; "" if it is not there exactly once."""
    found = {m[1] for m in _INSTALLED.finditer(text)}
    return found.pop().decode("utf-8", "replace") if len(found) == 1 else ""


def search_directories(request: CompileRequest, invocation: Invocation) -> tuple[bytes, ...]:
    """Return the directories that flags and environment put on the search path."""
    variables = (request.env.get(name, b"") for name in (b"INCLUDE", b"EXTERNAL_INCLUDE"))
    listed = (d for names in variables for d in names.split(b";") if d)
    return tuple(dict.fromkeys((*invocation.include_dirs, *listed)))


class ClHost:
    """Asks each compiler once for its properties. Thread-safe: a race only asks twice.

    `state` returns a value that changes when the compiler of a path does.
    """

    def __init__(
        self, machine: LocalMachine, state: Callable[[str], Hashable] | None = None
    ) -> None:
        self.machine, self._state = machine, state or machine.state
        self._answers: BoundedMemo[Hashable, object] = BoundedMemo(_MAX_REMEMBERED)

    def version(self, request: CompileRequest) -> tuple[MsvcFamily, Version]:
        """Return the compiler's family and version, by its own answer.

        Raises:
            NotPortableError: it cannot be run, or its answer is unknown.
        """
        try:
            return msvc_family_that_answers(self._about(request))
        except CallerError as error:
            raise NotPortableError(error.reason) from error

    def described(self, request: CompileRequest) -> HostToolchain:
        """Return the compiler's description for a comparison; without one if it does not answer."""
        name = program_name(request.argv[0])
        key = ("described", name, *self._identity(request))
        known = self._answers.get(key)
        if known is None:
            try:
                toolchain = read_cl((name,), self._about(request))
            except NotPortableError:
                return HostToolchain(name, None, "")  # it is asked again
            except CallerError:
                found = HostToolchain(name, None, "")
            else:
                found = HostToolchain(name, toolchain, encode_toolchains([toolchain]))
            known = self._remember(key, found)
        return known  # type: ignore[return-value]  # stored under this key only here

    def _about(self, request: CompileRequest) -> bytes:
        """Return what the compiler's preprocessor makes of `VERSION_SOURCE`."""
        key = ("about", *self._identity(request))
        known = self._answers.get(key)
        if known is None:
            answer = self._compile(request, {"v.c": VERSION_SOURCE}, _SILENT, b"-EP", b"v.c")
            if answer.exit_code:
                return answer.stdout
            known = self._remember(key, answer.stdout)
        return known  # type: ignore[return-value]  # stored under this key only here

    def notes(self, request: CompileRequest, output: bytes) -> tuple[tuple[str, ...], bytes]:
        """Return the files that `-showIncludes` named in this output, and the rest of it.

        Raises:
            NotPortableError: the compiler cannot be asked, or the output cannot be read.
        """
        family, _ = self.version(request)
        encoding = family.listing_encoding(self.machine.encoding)
        try:
            return read_show_includes(output, self.words(request), encoding=encoding)
        except CallerError as error:
            raise NotPortableError(error.reason) from error

    def search(self, request: CompileRequest, invocation: Invocation) -> ClSearch:
        """Return where clang-cl is and all directories that it searches; nothing for cl.

        Raises:
            NotPortableError: it does not list them.
        """
        family, _ = self.version(request)
        if not family.has_local_cache:
            return ClSearch("", ())
        flags = flags_of_reading(invocation)
        language = b"-TC" if invocation.language is Language.C else b"-TP"
        asked = ("search", flags, language, request.cwd, *sorted(request.env.items()))
        key = (*asked, *self._identity(request))
        known = self._answers.get(key)
        if known is None:
            question = (*flags, b"-clang:-v", b"-E", language, b"NUL")
            answer = self._run(request, (request.compiler, *question), request.cwd)
            text = answer.stderr.replace(b"\r\n", b"\n")
            found = search_lines(text)
            if not found:
                raise NotPortableError(FallbackReason.DEPENDENCIES_FAILED)
            known = self._remember(key, ClSearch(_installed_in(text), found))
        return known  # type: ignore[return-value]  # stored under this key only here

    def expanded(self, request: CompileRequest, invocation: Invocation) -> bytes:
        """Return the preprocessor's output for a compile, without line markers.

        Raises:
            NotPortableError: it failed.
        """
        family, _ = self.version(request)
        bare = (request.compiler, *without_outputs(invocation), _SILENT)
        mode = (b"-E", b"-clang:-P") if family.has_local_cache else (b"-EP",)
        return self._run(request, (*bare, *mode), request.cwd).stdout

    def takes(self, request: CompileRequest, flags: tuple[bytes, ...]) -> bool:
        """Tell whether the compiler takes flags without a message; cl prints the source's name."""
        key = ("takes", flags, *self._identity(request))
        known = self._answers.get(key)
        if known is None:
            argv = (_SILENT, b"-c", b"-Z7", b"-Foempty.obj", *flags, b"empty.c")
            answer = self._compile(request, {"empty.c": b""}, *argv)
            said = answer.stderr + answer.stdout.strip().removeprefix(b"empty.c")
            known = self._remember(key, answer.exit_code == 0 and not said)
        return known is True

    def files(self, request: CompileRequest, invocation: Invocation) -> tuple[str, ...]:
        """Return the files that the compile reads, as the compiler lists them.

        Raises:
            NotPortableError: it lists none, or reads files that cannot be sent (modules, a PCH).
        """
        family, version = self.version(request)
        bare = (request.compiler, *without_outputs(invocation), _SILENT, b"-Zs")
        try:
            if family.writes_reports(version):
                return self._reported(request, bare)
            words = self.words(request)
            answer = self._run(request, (*bare, b"-showIncludes"), request.cwd)
            names, _ = read_show_includes(
                answer.stdout + answer.stderr,
                words,
                encoding=family.listing_encoding(self.machine.encoding),
            )
        except CallerError as error:
            raise NotPortableError(error.reason) from error
        return names

    def depfile(self, request: CompileRequest, invocation: Invocation) -> bytes:
        """Return the depfile that the compile would write, from a run that writes no object.

        Raises:
            NotPortableError: the compiler fails, or would name the target after another output.
        """
        flags = [
            p for p in invocation.parts
            if isinstance(p, Flag) and p.spec.effect is Effect.DEPENDENCY
        ]  # fmt: skip
        if not any(flag.spec.spelling in TARGETS for flag in flags):
            raise NotPortableError(FallbackReason.PASS_THROUGH)
        words = [word for flag in flags if flag.spec.spelling != DEPFILE for word in flag.raw]
        bare = (request.compiler, *without_outputs(invocation), _SILENT, b"-Zs", *words)
        with self._scratch() as directory:
            place = f"{directory}\\{_DEPFILE}"
            self._run(request, (*bare, f"-{DEPFILE}{place}".encode()), request.cwd)
            data = self.machine.read(place, MAX_DEPFILE_BYTES)
        if not data:
            raise NotPortableError(FallbackReason.DEPENDENCIES_FAILED)
        return data

    def _reported(self, request: CompileRequest, bare: tuple[bytes, ...]) -> tuple[str, ...]:
        with self._scratch() as directory:
            report = f"{directory}\\{_REPORT}"
            self._run(request, (*bare, b"-sourceDependencies", report.encode()), request.cwd)
            data = self.machine.read(report, MAX_DEPFILE_BYTES)
        return read_source_dependencies(data or b"")

    def words(self, request: CompileRequest) -> bytes:
        """Learn the text before a file's name in `-showIncludes`, which depends on the language."""
        key = ("words", request.env.get(b"VSLANG"), *self._identity(request))
        known = self._answers.get(key)
        if known is None:
            sources = {name: text.encode() for name, text in PROBE_FILES.items()}
            argv = (_SILENT, b"-Zs", b"-showIncludes", next(iter(PROBE_FILES)).encode())
            answer = self._compile(request, sources, *argv)
            known = self._remember(key, learn_show_includes(answer.stdout + answer.stderr))
        return known  # type: ignore[return-value]  # stored just above

    def _compile(
        self, request: CompileRequest, sources: Mapping[str, bytes], *argv: bytes
    ) -> ProgramOutput:
        mode = msvc_family(request.compiler).mode_arguments(request.compiler)
        with self._scratch() as directory:
            for name, data in sources.items():
                self.machine.write(f"{directory}\\{name}", data)
            line = (request.compiler, *mode, *argv)
            return self._run(request, line, directory.encode(), check=False)

    def _run(
        self, request: CompileRequest, argv: Sequence[bytes], cwd: bytes, *, check: bool = True
    ) -> ProgramOutput:
        try:
            answer = self.machine.run(argv, without_cl_variables(request.env), cwd)
        except OSError as error:
            raise NotPortableError(FallbackReason.DEPENDENCIES_FAILED) from error
        if check and answer.exit_code:
            raise NotPortableError(FallbackReason.DEPENDENCIES_FAILED)
        return answer

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        try:
            with self.machine.scratch() as directory:
                yield directory
        except OSError as error:
            raise NotPortableError(FallbackReason.DEPENDENCIES_FAILED) from error

    def _identity(self, request: CompileRequest) -> tuple[Hashable, ...]:
        return request.compiler, self._state(request.compiler.decode("utf-8", "replace"))

    def _remember[T](self, key: Hashable, answer: T) -> T:
        self._answers[key] = answer
        return answer
