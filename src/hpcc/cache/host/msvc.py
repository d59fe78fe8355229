"""clang-cl in the local cache: what differs from gcc and clang.

It takes clang's own dependency flags behind `/clang:`. With debug information each flag goes into
the object (LF_BUILDINFO), so the files are then asked for in a second run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from hpcc.cache.base.api import CompileRequest
from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.invocation.invocation import Dialect, Invocation, Language
from hpcc.compilers.msvc.invocation import CL_DRIVER_MODE, is_clang_cl, read_msvc_invocation
from hpcc.compilers.msvc.text import expand_windows_responses, fold_variables
from hpcc.compilers.spec.table import Bypass, Effect, Flag, Operand
from hpcc.core import Toolchain

Version = tuple[int, ...]

# Added to every command line, before and behind (cpp-docs, "CL environment variables").
_BEFORE, _BEHIND = b"CL", b"_CL_"
# Search paths, and what Visual Studio's prompts say of the installation; they mean nothing to
# gcc and clang. Sources: cpp-docs; LLVM's MSVCPaths.cpp.
MSVC_ENV: Final = frozenset(
    {
        _BEFORE, _BEHIND, b"INCLUDE", b"EXTERNAL_INCLUDE", b"LIB", b"LIBPATH", b"VSLANG",
        b"VCToolsInstallDir", b"VCToolsVersion", b"VCINSTALLDIR", b"WindowsSdkDir",
        b"WindowsSDKVersion", b"UniversalCRTSdkDir", b"UCRTVersion",
    }
)  # fmt: skip
# Sends the output to another process's handle.
_REFUSED_ENV: Final = b"VS_UNICODE_OUTPUT"
_EXE: Final = re.compile(rb"\.exe\Z", re.IGNORECASE)
_DEBUG: Final = ("Z7", "Zi", "g")


def is_msvc(compiler: bytes, arguments: tuple[bytes, ...]) -> bool:
    """Say whether a command line is to be read as cl's."""
    return is_clang_cl(compiler) is not None or CL_DRIVER_MODE in arguments


def read_request(
    request: CompileRequest, read_file: Callable[[bytes], bytes | None]
) -> Invocation | Bypass:
    """Read a command line of cl's kind with everything that is added to it."""
    if is_clang_cl(request.compiler) is False:
        return Bypass("other-compiler")  # cl itself runs on Windows alone: `cl_farm`
    return read_command(request, read_file)


def read_command(
    request: CompileRequest, read_file: Callable[[bytes], bytes | None]
) -> Invocation | Bypass:
    """Read what stands in argv, CL, _CL_ and response files, of cl where it has that name."""
    if _REFUSED_ENV in request.env:
        return Bypass("environment")
    is_clang = is_clang_cl(request.compiler) is not False
    env = request.env
    arguments = fold_variables(
        request.argv[1:], before=env.get(_BEFORE, b""), behind=env.get(_BEHIND, b"")
    )
    if not isinstance(arguments, Bypass):
        arguments = expand_windows_responses(arguments, read_file, is_nested=is_clang)
    return (
        arguments
        if isinstance(arguments, Bypass)
        else read_msvc_invocation(arguments, is_clang=is_clang)
    )


def image_version(request: CompileRequest, image: Sequence[Toolchain] | None) -> Version | None:
    """Return the version of the image's compiler; None where nobody has said what the image has.

    Raises:
        NotPortableError: it has none that is called so.
    """
    if image is None:
        return None
    base = re.split(rb"[\\/]", request.argv[0])[-1]
    name = _EXE.sub(b"", base).decode("utf-8", "replace")
    there = next((t for t in image if name in t.names), None)
    is_own = is_clang_cl(name.encode()) is True
    if there is None or (is_own and there.family != "clang-cl"):
        raise NotPortableError("not-in-image")
    return tuple(int(part) for part in there.version.split("."))


def own_environment(env: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return it without the variables that the arguments hold already."""
    return {name: value for name, value in env.items() if name not in {_BEFORE, _BEHIND}}


def records_flags(invocation: Invocation) -> bool:
    """Say whether the object will hold every flag."""
    return any(f.spec.spelling.startswith(_DEBUG) for f in invocation.flags)


def command(request: CompileRequest, extra: list[bytes]) -> tuple[bytes, ...]:
    """Return what to run: the user's own line, since CL and `--` mean something by their place."""
    return (request.compiler, *extra, *request.argv[1:])


def depfile_flags(path: bytes) -> list[bytes]:
    """Return what makes it write a dependency file."""
    return [b"-clang:-MD", b"-clang:-MF" + path]


def without_outputs(invocation: Invocation) -> tuple[bytes, ...]:
    """Return the arguments for a run that writes no object and says nothing else."""
    kept: list[bytes] = []
    source: tuple[bytes, ...] = ()
    for part in invocation.parts:
        if isinstance(part, Operand):
            source = (b"/Tc" if invocation.language is Language.C else b"/Tp", part.name)
        elif part.spec.spelling in {"Tc", "Tp"}:
            source = part.raw
        elif not _is_output(part):
            kept.extend(part.raw)
    return (*kept, *source)


def _is_output(flag: Flag) -> bool:
    is_note = flag.spec.spelling.startswith("showIncludes")
    return is_note or flag.spec.effect in {Effect.MODE, Effect.OUTPUT, Effect.SIDE_OUTPUT}


def question(invocation: Invocation) -> list[bytes]:
    """Return the arguments that make it tell its search path for this language."""
    language = b"/TC" if invocation.language is Language.C else b"/TP"
    return [language, b"-clang:-v", b"-E", b"--", b"/dev/null"]


def separates_streams(invocation: Invocation) -> bool:
    """Say whether stdout has the list of headers alone, which no reader wants among messages."""
    return is_of(invocation) and any(
        f.spec.spelling.startswith("showIncludes") for f in invocation.flags
    )


def homes(names: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return where a quoted name is also looked for: beside each file that led to the line."""
    return tuple(dict.fromkeys(n.rpartition(b"/")[0] or b"." for n in names))


def is_of(invocation: Invocation) -> bool:
    return invocation.dialect is Dialect.MSVC
