"""clang-cl and cl as a `CompilerFamily`: clang with the command line of cl.

clang-cl accepts clang's dependency flags behind `/clang:`. With debug information each flag goes
into the object (LF_BUILDINFO), so the list of files then comes from a second run. cl runs only on
Windows, where the client looks up no compile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hpcc.compilers.clang.family import ClangFamily
from hpcc.compilers.invocation.content import ContentForm
from hpcc.compilers.invocation.dependencies import Recording, Way
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.guest import GUEST_ROOT, GuestCommand, GuestMap, NotPortableError
from hpcc.compilers.invocation.invocation import Invocation, Language
from hpcc.compilers.invocation.several import SeveralSources
from hpcc.compilers.msvc.clang_cl_guest import (
    INJECTED_CL,
    clang_cl_guest_arguments,
    client_notes,
    definitions_with_slashes,
    slashed_names,
    with_slashes,
)
from hpcc.compilers.msvc.flags import DATABASE, TO_CLANG
from hpcc.compilers.msvc.invocation import read_msvc_invocation
from hpcc.compilers.msvc.probe import SOURCE_DEPENDENCIES_SINCE, program_name, read_cl_version
from hpcc.compilers.msvc.repro import Version, reproducible_flags
from hpcc.compilers.msvc.text import expand_windows_responses, fold_variables
from hpcc.compilers.scan.includes import Includes
from hpcc.compilers.scan.questions import Definitions
from hpcc.compilers.scan.scan import Hazard
from hpcc.compilers.scan.twins import TwinRule
from hpcc.compilers.spec.drivers import (
    CL_BEFORE,
    CL_BEHIND,
    CL_DRIVER_MODE,
    INCLUDE_ENV,
    MSVC_ENV,
    is_clang_cl,
    is_of_nvcc,
    without_cl_variables,
)
from hpcc.compilers.spec.response import ReadFile
from hpcc.compilers.spec.table import Bypass, Effect, Flag, Operand
from hpcc.core import Toolchain
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.fallback import FallbackReason

# Sends the output to another process's handle.
_REFUSED_ENV: Final = b"VS_UNICODE_OUTPUT"
_OF_ONE_SOURCE: Final = frozenset({Effect.LANGUAGE, Effect.FORCED_INCLUDE})
_WITHOUT_TEXT: Final = frozenset({Effect.MODE, Effect.OUTPUT, Effect.DEPENDENCY, Effect.CODEGEN})
_OUTPUTS: Final = frozenset({Effect.MODE, Effect.OUTPUT, Effect.DEPENDENCY, Effect.SIDE_OUTPUT})
_DEBUG: Final = ("Z7", "Zi", "g")
# Search paths that a guest can have. All other variables of Visual Studio's prompts name
# installations on this machine (LLVM's MSVCPaths.cpp).
_PATHS: Final = (b"INCLUDE", b"EXTERNAL_INCLUDE")
_HARMLESS: Final = frozenset({CL_BEFORE, CL_BEHIND, b"LIB", b"LIBPATH", b"VSLANG", *_PATHS})
_ELSEWHERE: Final = MSVC_ENV - _HARMLESS


class MsvcFamily(ClangFamily):
    """clang-cl and cl; see `CompilerFamily`. `is_own`: clang-cl (or clang in its mode), not cl."""

    name: str = "msvc"
    has_windows_farm: bool = True
    never_shared: str = "msvc"
    search_variables: tuple[bytes, ...] = (*INCLUDE_ENV, *sorted(MSVC_ENV))

    def __init__(self, *, is_own: bool) -> None:
        self._is_own = is_own
        self.twin_rule: TwinRule | None = TwinRule.INODE if is_own else None
        self.has_local_cache = is_own

    def settled(self, asked: CompilerFamily) -> CompilerFamily:
        del asked
        return self

    def variant(self, words: Sequence[bytes]) -> CompilerFamily:
        del words
        return self

    # ---- command line and environment ----

    def expand(
        self,
        compiler: bytes,
        arguments: tuple[bytes, ...],
        env: Mapping[bytes, bytes],
        read_file: ReadFile,
    ) -> tuple[bytes, ...] | Bypass:
        del compiler
        if _REFUSED_ENV in env:
            return Bypass(BypassReason.ENVIRONMENT)
        before, behind = env.get(CL_BEFORE, b""), env.get(CL_BEHIND, b"")
        folded = fold_variables(arguments, before=before, behind=behind)
        if isinstance(folded, Bypass):
            return folded
        return expand_windows_responses(folded, read_file, is_clang=self._is_own)

    def read(self, compiler: bytes, arguments: Sequence[bytes]) -> Invocation | Bypass:
        del compiler
        return read_msvc_invocation(arguments, is_clang=self._is_own)

    def several_sources(self, arguments: Sequence[bytes]) -> SeveralSources | None:
        del arguments
        return None  # no compile of cl is split: nobody compared the objects

    def key_environment(
        self, env: dict[bytes, bytes], words: Sequence[bytes]
    ) -> dict[bytes, bytes]:
        del words
        return {name: value for name, value in env.items() if not is_of_nvcc(name)}

    def question_environment(self, env: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        return without_cl_variables(env)

    def command(
        self,
        argv: Sequence[bytes],
        compiler: bytes,
        invocation: Invocation,
        extra: Sequence[bytes],
        behind: Sequence[bytes],
    ) -> tuple[bytes, ...]:
        """Return the user's own line, because CL and `--` depend on their position."""
        del invocation, behind
        return (compiler, *extra, *argv[1:])

    def listing_encoding(self, console: str) -> str:
        """Return the encoding of names in its output: cl follows the console, clang-cl never."""
        return "utf-8" if self._is_own else console

    def text_arguments(self, invocation: Invocation) -> tuple[bytes, ...]:
        """Return the arguments whose text may reach the source: macros, names, what clang gets.

        The others are words of the table: `/MP` is not a piece of `__TIMESTAMP__`.
        """
        kept: list[bytes] = []
        for part in invocation.parts:
            if isinstance(part, Operand):
                kept.append(part.name)
            elif part.spec.effect not in _WITHOUT_TEXT:
                kept.extend(part.raw)
        return tuple(kept)

    def mode_arguments(self, compiler: bytes) -> tuple[bytes, ...]:
        """Return the flag that makes this program read cl's command line; clang needs one."""
        return () if is_clang_cl(compiler) is not None else (CL_DRIVER_MODE,)

    def database_of(self, invocation: Invocation) -> bytes | None:
        """Return where cl would write a program database: a file or a directory.

        None if no flag names it, or the compiler ignores the flag.
        """
        named = [flag.value for flag in invocation.flags if flag.spec.spelling == DATABASE]
        return named[-1] if named and not self._is_own else None

    # ---- what this compiler is ----

    def search_question(self, invocation: Invocation) -> list[bytes]:
        language = b"/TC" if invocation.language is Language.C else b"/TP"
        question = [language, b"-clang:-v", b"-E", b"--", b"/dev/null"]
        return [*invocation.search_arguments, *question]

    def native_question(self, invocation: Invocation) -> list[bytes] | None:
        del invocation
        return None

    def colour_question(self, invocation: Invocation) -> list[bytes]:
        return [*invocation.search_arguments, b"/TC", b"-E", b"-"]

    # ---- what a compile writes and reads ----

    def recording(self, invocation: Invocation) -> Recording:
        is_debug = any(
            f.spec.spelling.startswith(_DEBUG)
            or (f.spec.spelling == TO_CLANG and f.value.startswith(b"-g"))
            for f in invocation.flags
        )
        return Recording.ALWAYS if is_debug else Recording.NEVER

    def writes_reports(self, version: Version) -> bool:
        """Return whether `/sourceDependencies` lists what a compile reads."""
        return not self._is_own and version >= SOURCE_DEPENDENCIES_SINCE

    def dependency_flags(self, way: Way, path: bytes) -> list[bytes]:
        return [b"-clang:-MD", b"-clang:-MF" + path] if way is Way.PRIVATE_FILE else []

    def dependency_command(
        self, compiler: bytes, invocation: Invocation, injected: Sequence[bytes]
    ) -> list[bytes]:
        return [compiler, *without_outputs(invocation), *injected, b"-clang:-M"]

    def expansion_command(
        self, compiler: bytes, invocation: Invocation, *, keeps_lines: bool
    ) -> list[bytes]:
        mode = (b"-E",) if keeps_lines else (b"-E", b"-clang:-P")
        return [compiler, *without_outputs(invocation), *mode]

    def macro_use_command(self, compiler: bytes, invocation: Invocation) -> list[bytes] | None:
        del compiler, invocation
        return None

    def separates_streams(self, invocation: Invocation) -> bool:
        return any(f.spec.spelling.startswith("showIncludes") for f in invocation.flags)

    def doubts(self, invocation: Invocation) -> Hazard:
        del invocation
        return Hazard.OPAQUE_ASSEMBLY  # blocks of `__asm` are part of cl's language

    def quoted_homes(self, names: Sequence[bytes]) -> tuple[bytes, ...]:
        """Return the directories of these files: cl looks for quoted names in each of them."""
        return tuple(dict.fromkeys(n.rpartition(b"/")[0] or b"." for n in names))

    def includes(self, found: Includes) -> Includes:
        return with_slashes(found)

    def definitions(self, found: Definitions) -> Definitions:
        return definitions_with_slashes(found)

    def questions(self, found: frozenset[tuple[bool, bytes]]) -> frozenset[tuple[bool, bytes]]:
        return found | slashed_names(found)

    # ---- a farm ----

    def content_form(self, invocation: Invocation, major: int) -> ContentForm | None:
        del invocation, major
        return None  # no experiment has been made with this grammar

    def image_version(self, program: bytes, image: Sequence[Toolchain] | None) -> Version | None:
        return image_version(program, image)

    def guest_command(
        self,
        invocation: Invocation,
        guest: GuestMap,
        version: Version,
        accepts: Callable[[tuple[bytes, ...]], bool],
    ) -> GuestCommand:
        def takes(flags: tuple[bytes, ...]) -> bool:
            trial = (CL_DRIVER_MODE, b"-c", b"-Z7", b"-Foempty.obj", *flags, b"--", b"empty.c")
            return accepts(trial)

        flags = self.reproducible_flags(invocation, version, GUEST_ROOT, takes)
        injected = (*flags, *INJECTED_CL)
        return GuestCommand(clang_cl_guest_arguments(invocation, guest, injected), injected)

    def reproducible_flags(
        self,
        invocation: Invocation,
        version: Version,
        root: bytes,
        takes: Callable[[tuple[bytes, ...]], bool],
    ) -> tuple[bytes, ...]:
        """See `hpcc.compilers.msvc.repro`."""
        return reproducible_flags(invocation, version, root, is_clang=self._is_own, accepts=takes)

    def guest_environment(self, env: Mapping[bytes, bytes], guest: GuestMap) -> dict[bytes, bytes]:
        if not _ELSEWHERE.isdisjoint(env):
            raise NotPortableError(FallbackReason.ENVIRONMENT)
        return {
            name: b";".join(guest.spell_directory(d) for d in env[name].split(b";") if d)
            for name in _PATHS
            if env.get(name)
        }

    def search_values(self, env: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        return tuple(env.get(name, b"") for name in _PATHS)

    def client_stdout(
        self, invocation: Invocation, text: bytes, is_here: Callable[[bytes], bool]
    ) -> bytes:
        return client_notes(text, is_here) if self.separates_streams(invocation) else text


CLANG_CL: Final = MsvcFamily(is_own=True)
CL: Final = MsvcFamily(is_own=False)


def msvc_family(compiler: bytes) -> MsvcFamily:
    """Return the family of cl for a program with that name; else that of clang-cl."""
    return CL if is_clang_cl(compiler) is False else CLANG_CL


def msvc_family_that_answers(output: bytes) -> tuple[MsvcFamily, Version]:
    """Return family and version from a compiler's output for `VERSION_SOURCE`.

    Raises:
        CallerError: no such answer is in the output.
    """
    is_own, version = read_cl_version(output)
    return CLANG_CL if is_own else CL, version


def image_version(
    program: bytes, image: Sequence[Toolchain] | None, here: Version | None = None
) -> Version | None:
    """Return the version of the image's compiler; None if the image's compilers are unknown.

    An image for Windows can have several cl, in directories named after their version: that of
    this machine's compiler, `here`, comes first.

    Raises:
        NotPortableError: the image has no compiler of that name.
    """
    if image is None:
        return None
    name = program_name(program)
    is_own = is_clang_cl(name.encode()) is True
    named = [t for t in image if name in t.names and (t.family == "clang-cl" or not is_own)]
    if not named:
        raise NotPortableError(FallbackReason.NOT_IN_IMAGE)
    versions = [tuple(int(part) for part in t.version.split(".")) for t in named]
    is_named_after = all(t.family == "msvc" for t in named)
    return here if is_named_after and here in versions else versions[0]


def flags_of_reading(invocation: Invocation) -> tuple[bytes, ...]:
    """Return the flags for a question about headers, without source, outputs and forced headers."""
    flags = (f for f in invocation.flags if f.spec.effect not in _OF_ONE_SOURCE)
    return tuple(word for flag in flags if not _is_output(flag) for word in flag.raw)


def without_outputs(invocation: Invocation) -> tuple[bytes, ...]:
    """Return the arguments for a run that writes no object and prints nothing else."""
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
    return is_note or flag.spec.effect in _OUTPUTS
