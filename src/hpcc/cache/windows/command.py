"""From a launcher's request on Windows to a compile with a key, or the reason for a bypass.

As `key.prepare` elsewhere: two requests with one key get the same object. In the key are the
arguments with `CL` and response files expanded, the working directory, the environment, and the
compiler: its path as spelled and as it is, and size, times and identity of each program, library
and configuration file beside it. The inputs' contents are in the manifest under the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.remote.cl_host import read_command
from hpcc.cache.windows.disk import CacheDisk
from hpcc.compilers.families import family_of
from hpcc.compilers.invocation.dependencies import Recording
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.msvc.family import MsvcFamily
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
_PROGRAMS: Final = (".exe", ".dll", ".cfg")
_MAX_PROGRAMS: Final = 2_000
_MAX_CONFIG_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class WindowsCompile:
    """A compile that may be cached.

    `lists` tells that the user asked for `/showIncludes`. `identity` is a digest of the compiler's
    files (32 bytes).
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

    @property
    def argv(self) -> tuple[bytes, ...]:
        """The command to run."""
        extra = () if self.lists else (b"-showIncludes",)
        request = self.request
        return self.family.command(request.argv, request.compiler, self.invocation, extra, ())


def read_compile(disk: CacheDisk, request: CompileRequest) -> WindowsCompile | Bypass:
    """Classify a request and compute its key. Runs no program."""
    if not family_of(request.compiler, request.argv[1:]).has_windows_farm:
        return Bypass(BypassReason.WINDOWS_HOST)
    try:
        cwd = parse_windows_path(request.cwd.decode())
        program = parse_windows_path(request.compiler.decode())
        found = read_command(disk, request, cwd)
        if isinstance(found, Bypass):
            return found
        family, invocation = found
        source = parse_windows_path(invocation.source.decode(), cwd=cwd)
        output = parse_windows_path(invocation.output.decode(), cwd=cwd)
    except (WindowsPathError, UnicodeDecodeError):
        return Bypass(BypassReason.WINDOWS_PATH)
    reason = _refusal(request.env, family, invocation)
    if reason is not None:
        return Bypass(reason)
    if key_of(source) == key_of(output) or disk.is_directory(str(output)):
        return Bypass(BypassReason.ODD_OUTPUT)
    parts = _parts(disk, request, program)
    if family.has_local_cache and any(_has_flags(disk, p) for p in parts if p.endswith(".cfg")):
        return Bypass(BypassReason.CONFIG_FILE)
    identity = _identity(disk, parts)
    if identity is None:
        return Bypass(BypassReason.COMPILER_UNREADABLE)
    env = without_cl_variables(request.env)
    own = family.has_local_cache  # cl finds some of its libraries by PATH
    named = sorted((n, v) for n, v in env.items() if not _is_without_effect(n, is_clang=own))
    key = hashlib.sha256(
        encode_fields(
            [
                KEY_FORMAT,
                *(request.compiler, request.cwd, request.argv[0]),
                encode_fields(invocation.arguments),
                encode_fields(part for item in named for part in item),
                identity,
                disk.languages,
            ]
        )
    ).digest()
    lists = any(f.spec.spelling == _LISTING for f in invocation.flags)
    return WindowsCompile(request, cwd, family, invocation, source, output, lists, identity, key)


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
    if listing - {_LISTING} or (is_debug and not listing):
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


def _parts(disk: CacheDisk, request: CompileRequest, program: WindowsPath) -> list[str]:
    """Return the files that tell this compiler from another.

    Beside the program are its libraries, its messages by language (`1033`) and clang's
    configuration; of a link, Windows takes those beside the link. `VCToolsInstallDir` has the
    cl.exe whose version clang-cl imitates.
    """
    real = disk.real(str(program))
    homes = dict.fromkeys(path.rpartition("\\")[0] for path in (str(program), real))
    found = [real, *(part for home in homes for part in _programs(disk, home, depth=1))]
    tools = request.env.get(b"VCToolsInstallDir", b"").decode("utf-8", "replace").rstrip("\\/")
    if tools:
        found += [p for p in _programs(disk, tools + "\\bin", depth=2) if p.endswith("\\cl.exe")]
    return found


def _has_flags(disk: CacheDisk, path: str) -> bool:
    """Tell whether a configuration file of clang may add flags, which nothing here reads."""
    text = disk.read(path, _MAX_CONFIG_BYTES)
    if text is None:
        return True
    return any(line.strip() and not line.lstrip().startswith(b"#") for line in text.splitlines())


def _identity(disk: CacheDisk, found: list[str]) -> bytes | None:
    """Return a digest of the compiler's files; None if one is unreadable."""
    parts: list[bytes] = []
    for path in found[:_MAX_PROGRAMS]:
        times = disk.times(path, is_at_rest=False)
        if times is None:
            return None
        state = (times.written_ns, times.changed_ns, times.size, *times.identity)
        parts += [path.encode("utf-8", "surrogatepass"), b"%d %d %d %d %d" % state]
    if len(found) > _MAX_PROGRAMS:
        return None
    return hashlib.sha256(encode_fields(parts)).digest()


def _programs(disk: CacheDisk, directory: str, *, depth: int) -> Iterator[str]:
    entries = disk.entries(directory) or {}
    for name in sorted(entries):
        if not entries[name]:
            if name.lower().endswith(_PROGRAMS):
                yield f"{directory}\\{name.lower()}"
        elif depth and (depth > 1 or name.isdecimal() or name.lower() in _ARCHITECTURES):
            yield from _programs(disk, f"{directory}\\{name}", depth=depth - 1)


_ARCHITECTURES: Final = frozenset({"x86", "x64", "arm", "arm64"})
