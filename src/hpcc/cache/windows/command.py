"""From a launcher's request on Windows to a compile with a key, or the reason for a bypass.

As `key.prepare` elsewhere: two requests with one key get the same object. In the key are the
arguments with `CL` and response files expanded, the working directory, the environment, and the
compiler: its path, and the files that tell it from another (`programs`). The inputs' contents are
in the manifest under the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.remote.cl_host import expanded_arguments
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.programs import (
    StarterError,
    digest_of,
    has_flags,
    has_libraries,
    imitated,
    programs_of,
)
from hpcc.compilers.families import family_of
from hpcc.compilers.invocation.dependencies import Recording
from hpcc.compilers.invocation.invocation import DepMode, Invocation
from hpcc.compilers.msvc.family import MsvcFamily, msvc_family
from hpcc.compilers.msvc.precompiled import PrecompiledFlags, read_with_precompiled
from hpcc.compilers.scan.windows_names import key_of
from hpcc.compilers.spec.drivers import without_cl_variables
from hpcc.compilers.spec.table import Bypass
from hpcc.core import WindowsPath, WindowsPathError, parse_windows_path
from hpcc.core.reasons.bypass import BypassReason

# Part of every key. Raise it when the meaning of a key or an entry changes.
KEY_FORMAT: Final = b"windows-1"
# They edit clang-cl's command line, add to its search path, or name further files.
_REFUSED_ENV: Final = (
    *(b"CCC_", b"CLANG_", b"CPATH", b"C_INCLUDE_PATH", b"CPLUS_INCLUDE_PATH"),
    b"VS_UNICODE_OUTPUT",
)
# They decide where temporary files are, what a shell finds, and what a linker reads.
_WITHOUT_EFFECT: Final = frozenset({b"TMP", b"TEMP", b"PATHEXT", b"LIB", b"LIBPATH", b"NO_COLOR"})
# clang-cl then asks neither the registry nor the installer of Visual Studio (LLVM, MSVC.cpp).
_INSTALLATION: Final = (b"VCToolsInstallDir", b"INCLUDE")
# With these it takes the newest version in a directory, and asks the registry for the rest.
_SEARCHING: Final = frozenset(
    {"winsysroot", "vctoolsdir", "vctoolsversion", "winsdkdir", "winsdkversion"}
)
_LISTING: Final = "showIncludes"


@dataclass(frozen=True, slots=True)
class Precompiled:
    """A precompiled header that a compile makes (`is_made`) or uses, of the header of this name."""

    path: WindowsPath
    header: bytes
    is_made: bool
    has_times: bool


@dataclass(frozen=True, slots=True)
class WindowsCompile:
    """A compile that may be cached.

    `invocation` is without flags about precompiled headers; `about_precompiled` are these. `lists`
    tells that the user asked for `/showIncludes`. `identity` is a digest of the compiler's files
    (32 bytes).
    """

    request: CompileRequest
    cwd: WindowsPath
    family: MsvcFamily
    invocation: Invocation
    source: WindowsPath
    output: WindowsPath
    lists: bool
    identity: bytes
    key: bytes
    precompiled: Precompiled | None = None
    about_precompiled: tuple[bytes, ...] = ()
    depfile: WindowsPath | None = None

    @property
    def reads_depfile(self) -> bool:
        """Whether the user's depfile lists all headers, so that hpcc adds no `/showIncludes`."""
        return self.invocation.dep_mode is DepMode.ALL and not self.lists

    @property
    def is_listed(self) -> bool:
        """Whether the user's own flags list the headers, so that all output is the user's."""
        return self.lists or self.reads_depfile

    @property
    def made(self) -> Precompiled | None:
        """The precompiled header that it makes."""
        found = self.precompiled
        return found if found is not None and found.is_made else None

    @property
    def outputs(self) -> tuple[WindowsPath, ...]:
        """The object, then the precompiled header if it makes one, then the depfile."""
        made = () if self.made is None else (self.made.path,)
        return (self.output, *made, *(() if self.depfile is None else (self.depfile,)))

    def argv(self, injected: tuple[bytes, ...] = ()) -> tuple[bytes, ...]:
        """Return the command to run, with flags that hpcc adds."""
        extra = (*injected, *(() if self.is_listed else (b"-showIncludes",)))
        request = self.request
        return self.family.command(request.argv, request.compiler, self.invocation, extra, ())


def read_compile(disk: CacheDisk, request: CompileRequest) -> WindowsCompile | Bypass:
    """Classify a request and compute its key. Runs no program."""
    if not family_of(request.compiler, request.argv[1:]).has_windows_farm:
        return Bypass(BypassReason.WINDOWS_HOST)
    try:
        cwd = parse_windows_path(request.cwd.decode())
        parse_windows_path(request.compiler.decode())
        family = msvc_family(request.compiler)
        arguments = expanded_arguments(disk, request, cwd)
        if isinstance(arguments, Bypass):
            return arguments
        found = read_with_precompiled(arguments, is_clang=family.has_local_cache)
        if isinstance(found, Bypass):
            return found
        invocation, about = found
        source = parse_windows_path(invocation.source.decode(), cwd=cwd)
        output = parse_windows_path(invocation.output.decode(), cwd=cwd)
        precompiled = _precompiled(about, cwd)
        named = invocation.depfile
        depfile = None if named is None else parse_windows_path(named.decode(), cwd=cwd)
    except (WindowsPathError, UnicodeDecodeError):
        return Bypass(BypassReason.WINDOWS_PATH)
    reason = _refusal(request.env, family, invocation)
    if reason is not None:
        return Bypass(reason)
    lists = any(f.spec.spelling == _LISTING for f in invocation.flags)
    places = (cwd, family, invocation, source, output, lists)
    pch = None if precompiled is None else precompiled.path
    files = [path for path in (source, output, pch, depfile) if path is not None]
    if len({key_of(path) for path in files}) < len(files) or any(
        disk.is_directory(str(path)) for path in files[1:]
    ):
        return Bypass(BypassReason.ODD_OUTPUT)
    identity = _identity(disk, request, family)
    if isinstance(identity, Bypass):
        return identity
    key = hashlib.sha256(
        encode_fields(
            [
                KEY_FORMAT,
                *(request.compiler, request.cwd, request.argv[0]),
                encode_fields(invocation.arguments),
                encode_fields(key_environment(request.env, family)),
                identity,
                disk.languages,
                *about.words,
            ]
        )
    ).digest()
    return WindowsCompile(request, *places, identity, key, precompiled, about.words, depfile)


def _precompiled(about: PrecompiledFlags, cwd: WindowsPath) -> Precompiled | None:
    if not about.header:
        return None
    path = parse_windows_path(about.path.decode(), cwd=cwd)
    return Precompiled(path, about.header, about.is_made, about.has_times)


def key_environment(env: Mapping[bytes, bytes], family: MsvcFamily) -> list[bytes]:
    """Return the names and values of the variables that may change the object."""
    own = family.has_local_cache  # cl finds some of its libraries by PATH
    items = sorted(without_cl_variables(env).items())
    kept = (item for item in items if not _is_without_effect(item[0], is_clang=own))
    return [part for item in kept for part in item]


def _is_without_effect(name: bytes, *, is_clang: bool) -> bool:
    return (
        name in _WITHOUT_EFFECT
        or name.startswith(b"HPCC_")
        or (is_clang and name.upper() == b"PATH")
    )


def _refusal(
    env: Mapping[bytes, bytes], family: MsvcFamily, invocation: Invocation
) -> BypassReason | None:
    if any(name.startswith(_REFUSED_ENV) for name in env):
        return BypassReason.ENVIRONMENT
    if invocation.has_side_outputs:
        return BypassReason.SIDE_OUTPUT
    if invocation.is_native:
        return BypassReason.NATIVE
    if family.has_local_cache and not _names_installation(env, invocation):
        return BypassReason.VISUAL_STUDIO
    listing = {f.spec.spelling for f in invocation.flags if f.spec.spelling.startswith(_LISTING)}
    is_debug = family.recording(invocation) is Recording.ALWAYS
    # cl warns of `/MP` beside `/showIncludes` (D9030), also beside the one that hpcc adds.
    warns = not family.has_local_cache and any(f.spec.spelling == "MP" for f in invocation.flags)
    is_listed = listing or invocation.dep_mode is DepMode.ALL
    if listing - {_LISTING} or ((is_debug or warns) and not is_listed):
        return BypassReason.SHOW_INCLUDES
    return None


def _names_installation(env: Mapping[bytes, bytes], invocation: Invocation) -> bool:
    """Tell whether the environment names all that clang-cl would search for.

    For another target than Microsoft's it searches for GCC.
    """
    words = (word for flag in invocation.flags for word in flag.raw)
    targets = [word for word in words if b"target=" in word]
    if any(flag.spec.spelling in _SEARCHING for flag in invocation.flags):
        return False
    return all(map(env.get, _INSTALLATION)) and all(t.endswith(b"-msvc") for t in targets)


def _identity(disk: CacheDisk, request: CompileRequest, family: MsvcFamily) -> bytes | Bypass:
    """Return a digest of the files that tell this compiler from another; see `programs`."""
    compiler = request.compiler.decode()
    tools = request.env.get(b"VCToolsInstallDir", b"").decode("utf-8", "replace")
    try:
        parts = [*programs_of(disk, compiler), *imitated(disk, tools)]
        is_starter = not family.has_local_cache and not has_libraries(disk, compiler)
    except StarterError:
        is_starter, parts = True, []
    if is_starter:
        return Bypass(BypassReason.STARTER)
    if family.has_local_cache and any(has_flags(disk, p) for p in parts if p.endswith(".cfg")):
        return Bypass(BypassReason.CONFIG_FILE)
    return digest_of(disk, parts) or Bypass(BypassReason.COMPILER_UNREADABLE)
