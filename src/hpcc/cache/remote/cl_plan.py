"""Turns a compile of cl or clang-cl on a Windows client into a request for a Windows guest.

A compile without a stored result asks the client's compiler for its files. Files below the root
are sent. Files of the compiler and the SDK come from the image, which has them at the same
paths, since a guest finds programs only by the PATH of the request.
Works on text and answers; access to the client goes through `LocalMachine`. Not yet run there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc import __version__
from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.listed_names import parse_dependencies
from hpcc.cache.remote.cl_host import ClHost, read_command, search_directories
from hpcc.compilers.families import family_of
from hpcc.compilers.invocation.guest import NotPortableError, as_text
from hpcc.compilers.invocation.invocation import DepMode, Invocation
from hpcc.compilers.msvc.family import image_version, msvc_family
from hpcc.compilers.msvc.guest import WINDOWS_GUEST_ROOT, WindowsGuestMap, windows_guest_arguments
from hpcc.compilers.msvc.probe import program_directories
from hpcc.compilers.scan.questions import NOTHING_ASKED, Questions
from hpcc.compilers.scan.scan import HAZARD_REASONS, Hazard, scan_arguments, scan_source
from hpcc.compilers.scan.windows_names import UnclearNameError, candidate, parent
from hpcc.compilers.spec.table import Bypass
from hpcc.config.farm import Farm
from hpcc.core import (
    MAX_INPUTS,
    CallerError,
    RemoteInput,
    RemoteRequest,
    RemoteResult,
    Toolchain,
    WindowsPath,
    WindowsPathError,
    parse_windows_path,
    windows_key,
)
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.fallback import FallbackReason

_MAX_SOURCE_BYTES: Final = 64 << 20
# Search paths: they are passed on if the image has all their directories.
_PATHS: Final = (b"INCLUDE", b"EXTERNAL_INCLUDE")
_PROGRAMS: Final = frozenset({"program files", "program files (x86)"})
_WINDOWS: Final = "C:\\Windows\\System32;C:\\Windows"
# Directories of the client that the image has as well (LLVM's MSVCPaths.cpp).
_SYSTEM_ENV: Final = (
    b"VCToolsInstallDir",
    b"VCINSTALLDIR",
    b"WindowsSdkDir",
    b"UniversalCRTSdkDir",
)
# They edit clang-cl's command line, or add directories to its search path that a guest lacks.
_REFUSED_ENV: Final = (b"CCC_", b"CLANG_", b"CPATH", b"C_INCLUDE_PATH", b"CPLUS_INCLUDE_PATH")
_PASSED_ENV: Final = (b"SOURCE_DATE_EPOCH", b"VSLANG")


@dataclass(frozen=True, slots=True)
class ClCompile:
    """A compile, and its project's root with links and `subst` resolved."""

    request: CompileRequest
    root: WindowsPath


@dataclass(frozen=True, slots=True)
class ClJob:
    """A compile whose command line is understood."""

    request: CompileRequest
    root: WindowsPath
    cwd: WindowsPath
    invocation: Invocation
    key: bytes


@dataclass(frozen=True, slots=True)
class ClPlan:
    """A request, and its outputs as pairs: path in the guest, file on the client.

    `report` is the guest path of the `/sourceDependencies` file, "" if there is none. `files` are
    the names of headers that the compiler listed. `depfile` is a file that it wrote here, with its
    path on the client.
    """

    request: RemoteRequest
    outputs: tuple[tuple[str, str], ...]
    report: str = ""
    files: tuple[str, ...] = ()
    depfile: tuple[str, bytes] | None = None
    # There is one way only: the compiler is asked.
    counter: str = ""


class ClPlanner:
    """Makes plans with the answers of a `ClHost`."""

    def __init__(self, host: ClHost) -> None:
        self._host = host

    def is_report(self, compile_: ClCompile) -> bool:
        """See `client.FarmPlanner.is_report`."""
        del compile_
        return False

    def job(self, compile_: ClCompile, farm: Farm) -> ClJob | Bypass:
        """See `client.FarmPlanner.job`."""
        request, root = compile_.request, compile_.root
        if not has_windows_farm(request):
            return Bypass(BypassReason.OTHER_COMPILER)
        cwd = _path(_text(request.cwd), None)
        found = read_command(self._host.machine, request, cwd)
        if isinstance(found, Bypass):
            return found
        family, invocation = found
        if family.database_of(invocation) is not None:
            return Bypass(BypassReason.PDB)  # whether one is written shows only after the compile
        if any(name.startswith(_REFUSED_ENV) for name in request.env):
            return Bypass(BypassReason.ENVIRONMENT)
        return ClJob(request, root, cwd, invocation, _key(compile_, invocation, farm))

    def learn(self, job: ClJob, plan: ClPlan, outcome: RemoteResult) -> bool:
        """Return False: the compiler listed every file, so a guest lacks none."""
        del job, plan, outcome
        return False

    def plan(
        self, job: ClJob, image: Sequence[Toolchain] | None, is_cancelled: Callable[[], bool]
    ) -> ClPlan | Bypass:
        """See `client.FarmPlanner.plan`."""
        del is_cancelled  # questions to the compiler have a time limit
        request, root, cwd, invocation = job.request, job.root, job.cwd, job.invocation
        system = _System(request, root)
        env = _environment(request, system, cwd)
        family, version = self._host.version(request)
        if family is not msvc_family(request.compiler):
            return Bypass(BypassReason.OTHER_COMPILER)
        guest = WindowsGuestMap(root, cwd, system)
        arguments = windows_guest_arguments(invocation, guest)
        inputs, files, depfile = self._inputs(request, invocation, guest)
        reports = invocation.values("sourceDependencies")
        # Written in this order: the object last, because builds check it.
        written = [_path(_text(name), cwd) for name in (*reports, invocation.output)]
        places = [_inside(path, root) for path in written]
        local = () if depfile is None else (depfile[0],)
        sent = (i.host_path for i in inputs)
        named = [windows_key(p) for p in (*map(str, written), *local, *sent)]
        if len(named) != len(set(named)):
            return Bypass(BypassReason.ODD_OUTPUT)
        # An empty list is that of an image whose compilers are where no question looks.
        there = image_version(request.argv[0], image or None, version) or version
        injected = family.reproducible_flags(
            invocation,
            there,
            WINDOWS_GUEST_ROOT.encode(),
            lambda flags: there != version or self._host.takes(request, flags),
        )
        program = request.argv[0].replace(b"/", b"\\").rpartition(b"\\")[2]
        argv = (program, *arguments, *injected)
        remote = RemoteRequest(
            argv=as_text(argv),
            env=env,
            cwd="" if _is_same(cwd, root) else _inside(cwd, root),
            inputs=inputs,
            outputs=tuple(reversed(places)),
            injected=as_text(injected),
            client_version=__version__,
            folds_case=True,
            build=request.build,
        )
        outputs = tuple(zip(places, map(str, written), strict=True))
        return ClPlan(remote, outputs, places[0] if reports else "", files, depfile)

    def _inputs(
        self,
        request: CompileRequest,
        invocation: Invocation,
        guest: WindowsGuestMap,
    ) -> tuple[tuple[RemoteInput, ...], tuple[str, ...], tuple[str, bytes] | None]:
        """Return every file of the project that the compile reads, sorted by path.

        Also return the headers as the compiler listed them, and the depfile.

        Raises:
            NotPortableError: a file cannot be sent, or reads others that no list shows.
        """
        texts = msvc_family(request.compiler).text_arguments(invocation)
        in_arguments = scan_arguments(texts, invocation.macros)
        _refuse_hazards(in_arguments.hazards)
        source = _text(invocation.source)
        found: dict[str, RemoteInput] = {}
        asked, homes = in_arguments.asked, {guest.cwd: None}
        files, depfile = self._listed(request, invocation, guest)
        for name in (source, *files):
            path = _path(name, guest.cwd)
            homes[parent(path)] = None
            if guest.is_system(path):
                continue
            place = _inside(path, guest.root)
            key = windows_key(place)  # cl writes names in lower case
            if key not in found:
                found[key], questions = self._input(place, path, guest.root)
                asked |= questions
            if len(found) > MAX_INPUTS:
                raise NotPortableError(FallbackReason.TOO_MANY_FILES)
        if asked is not NOTHING_ASKED:
            search = [_path(_text(d), guest.cwd) for d in search_directories(request, invocation)]
            for path in _asked_files(asked, tuple(homes), search, guest):
                place = path.relative_to(guest.root)
                is_there = self._host.machine.read(str(path), _MAX_SOURCE_BYTES) is not None
                if is_there and windows_key(place) not in found:
                    if depfile is not None:  # of what the guest may read it does not tell
                        raise NotPortableError(FallbackReason.HAS_INCLUDE)
                    found[windows_key(place)], _ = self._input(place, path, guest.root)
        return tuple(found[key] for key in sorted(found)), files, depfile

    def _listed(
        self, request: CompileRequest, invocation: Invocation, guest: WindowsGuestMap
    ) -> tuple[tuple[str, ...], tuple[str, bytes] | None]:
        """Return the headers as the compiler lists them, and the depfile if one is asked for."""
        if invocation.depfile is None:
            return self._host.files(request, invocation), None
        data = self._host.depfile(request, invocation)
        depfile = str(_path(_text(invocation.depfile), guest.cwd)), data
        if invocation.dep_mode is not DepMode.ALL:
            return self._host.files(request, invocation), depfile
        try:
            return tuple(name.decode() for name in parse_dependencies(data)), depfile
        except (UncacheableError, UnicodeDecodeError) as error:
            raise NotPortableError(FallbackReason.DEPENDENCIES_FAILED) from error

    def _input(
        self, place: str, path: WindowsPath, root: WindowsPath
    ) -> tuple[RemoteInput, Questions]:
        """Return a file to send, and what it asks with `__has_include`."""
        if not _is_in(_path(self._host.machine.real(str(path)), None), root):
            raise NotPortableError(FallbackReason.SYMLINK_OUTSIDE_ROOT)
        data = self._host.machine.read(str(path), _MAX_SOURCE_BYTES)
        if data is None:
            raise NotPortableError(FallbackReason.INPUT_VANISHED)
        scan = scan_source(data)
        _refuse_hazards(scan.hazards)
        digest = hashlib.sha256(data).hexdigest()
        return RemoteInput(place, str(path), False, digest), scan.asked


def _asked_files(
    asked: Questions,
    homes: Sequence[WindowsPath],
    search: Sequence[WindowsPath],
    guest: WindowsGuestMap,
) -> Iterator[WindowsPath]:
    """Yield where the project may have a file that a source asks for with `__has_include`.

    The guest has only files that are sent: with those that exist, it gives the same answer. Files
    of the installation are those of the image.

    Raises:
        NotPortableError: a macro decides the name, or it may lead to another place in the guest.
    """
    if asked.in_macros or asked.is_opaque:
        raise NotPortableError(FallbackReason.HAS_INCLUDE)
    for is_quoted, name in sorted(asked.names):
        for directory in (*search, *(homes if is_quoted else ())):
            try:
                path = candidate(name, directory)
            except UnclearNameError as error:
                raise NotPortableError(FallbackReason.HAS_INCLUDE) from error
            if path is None or guest.is_system(path):
                continue
            if not _is_in(path, guest.root) or _is_same(path, guest.root):
                raise NotPortableError(FallbackReason.HAS_INCLUDE)
            yield path


def has_windows_farm(request: CompileRequest) -> bool:
    """Tell whether a compiler of this kind, as it is called, can run in a guest with Windows."""
    return family_of(request.compiler, request.argv[1:]).has_windows_farm


def _key(compile_: ClCompile, invocation: Invocation, farm: Farm) -> bytes:
    """Return the key of a command. `windows.farm_results` has the format number."""
    request = compile_.request
    variables = [part for item in sorted(request.env.items()) for part in item]
    names = (farm.image, farm.isolation, farm.tenant, str(compile_.root))
    command = (request.compiler, request.cwd, request.argv[0], *invocation.arguments)
    fields = [*(n.encode("utf-8", "surrogatepass") for n in names), *command, b"", *variables]
    return hashlib.sha256(encode_fields(fields)).digest()


class _System:
    """Tells whether the image has a path: those of the compiler, the SDK and Program Files."""

    def __init__(self, request: CompileRequest, root: WindowsPath) -> None:
        names = [request.env[n] for n in _SYSTEM_ENV if request.env.get(n)]
        compiler = _parsed([request.compiler], None)
        home = compiler[0].components[:-2] if compiler else ()
        own = [WindowsPath(compiler[0].drive, home)] if home else []
        self._root = root
        self._directories = [d for d in (*_parsed(names, None), *own) if d.components]

    def __call__(self, path: WindowsPath) -> bool:
        if _is_in(path, self._root):
            return False
        first = windows_key(path.components[0]) if path.components else ""
        return first in _PROGRAMS or any(_is_in(path, d) for d in self._directories)


def _environment(
    request: CompileRequest, system: _System, cwd: WindowsPath
) -> tuple[tuple[str, str], ...]:
    """Return the guest's variables.

    Raises:
        NotPortableError: a search path names a directory that the image does not have.
    """
    (compiler,) = _parsed([request.compiler], None) or (None,)
    if compiler is None:
        raise NotPortableError(FallbackReason.WINDOWS_PATH)
    home = str(WindowsPath(compiler.drive, compiler.components[:-1]))
    found = {"PATH": ";".join((*program_directories(home), _WINDOWS))}
    for raw in _PATHS:
        names = [d for d in request.env.get(raw, b"").split(b";") if d]
        paths = _parsed(names, cwd)
        if len(paths) != len(names) or not all(map(system, paths)):
            raise NotPortableError(FallbackReason.ENVIRONMENT)
        if paths:
            found[raw.decode()] = ";".join(map(str, paths))
    found |= {n.decode(): _text(request.env[n]) for n in _PASSED_ENV if n in request.env}
    return tuple(sorted(found.items()))


def _parsed(names: Iterable[bytes], cwd: WindowsPath | None) -> list[WindowsPath]:
    found = []
    for name in names:
        try:
            found.append(parse_windows_path(name.decode(), cwd=cwd))
        except (WindowsPathError, UnicodeDecodeError):
            continue  # a guest cannot have files of such a directory
    return found


def _text(raw: bytes) -> str:
    return as_text([raw])[0]


def _path(text: str, cwd: WindowsPath | None) -> WindowsPath:
    try:
        return parse_windows_path(text, cwd=cwd)
    except WindowsPathError as error:
        raise NotPortableError(FallbackReason.WINDOWS_PATH) from error


def _inside(path: WindowsPath, root: WindowsPath) -> str:
    try:
        return path.relative_to(root)
    except WindowsPathError as error:
        raise NotPortableError(FallbackReason.OUTSIDE_ROOT) from error


def _is_in(path: WindowsPath, directory: WindowsPath) -> bool:
    if _is_same(path, directory):
        return True
    try:
        path.relative_to(directory)
    except CallerError:
        return False
    return True


def _is_same(one: WindowsPath, other: WindowsPath) -> bool:
    return windows_key(str(one)) == windows_key(str(other))


def _refuse_hazards(hazards: Hazard) -> None:
    """Refuse inputs that a list of headers omits.

    Opaque assembly passes: in a guest the assembler can read only the files that were sent.
    """
    for hazard, reason in HAZARD_REASONS.items():
        if hazard in hazards & ~Hazard.OPAQUE_ASSEMBLY:
            raise NotPortableError(reason)
