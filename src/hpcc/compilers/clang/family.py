"""clang as a `CompilerFamily`: where it differs from gcc, whose command line it shares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hpcc.compilers.clang.config_files import config_directories, config_names, named_target
from hpcc.compilers.gnu.family import GnuFamily
from hpcc.compilers.invocation.dependencies import Recording
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation, Product
from hpcc.compilers.invocation.precompiled import PROVED_CLANG
from hpcc.compilers.scan.scan import RESOLVABLE, Hazard
from hpcc.compilers.scan.twins import TwinRule
from hpcc.compilers.spec.drivers import INCLUDE_ENV, MSVC_ENV, TARGET, DriverAnswers

# Targets for which Clang runs its integrated assembler.
_INTEGRATED: Final = re.compile(
    rb"(?:x86_64|amd64|i[3-6]86|arm|thumb|aarch64|riscv|powerpc|ppc|mips|s390x|wasm|bpf|loongarch)"
)
# Verified with Clang 19 and 22. How other compilers list embedded files is not verified.
_ROOTS: Final = ("--sysroot=", "--sysroot", "-isysroot", "--gcc-toolchain=")
# A superset of what makes Clang look up names as cl does, or write CodeView.
_LIKE_MICROSOFT: Final = re.compile(rb"ms-compat|codeview|msvc|windows|win32|uefi", re.IGNORECASE)
_PROVED_EMBED: Final = range(19, 23)


class ClangFamily(GnuFamily):
    """See `CompilerFamily`. clang and clang++."""

    name: str = "clang"
    is_clang_like: bool = True
    # Clangs before 16 do not honour SOURCE_DATE_EPOCH.
    pins_dates: bool = False
    twin_rule: TwinRule | None = TwinRule.INODE
    wraps_messages: bool = True
    prints_links: bool = False
    takes_shorter_names: bool = False
    expands_preprocessed: bool = True
    has_blind_preprocessor: bool = False
    quotes_named_files: bool = False
    finds_installations: bool = True
    programs: tuple[bytes, ...] = (b"as", b"objcopy")
    program_questions: tuple[tuple[bytes, ...], ...] = ((b"-fno-integrated-as", b"-xc"),)
    search_variables: tuple[bytes, ...] = (*INCLUDE_ENV, *sorted(MSVC_ENV))

    def variant(self, words: Sequence[bytes]) -> CompilerFamily:
        return CLANG_LIKE_CL if is_like_microsoft(words) else self

    def driver_files(self, answers: DriverAnswers) -> dict[bytes, None]:
        default = TARGET.search(answers.about)
        named = (named_target(answers.compiler), named_target(answers.real))
        targets = (default and default[1], *named)
        where = self.config_directories(answers.about)
        return dict.fromkeys(n for t in targets if t is not None for n in config_names(where, t))

    def config_directories(self, about: bytes) -> tuple[bytes, ...]:
        return config_directories(about)

    def proper_program(self, invocation: Invocation) -> bytes:
        del invocation
        return b""  # the driver is the compiler

    def reads_sanitizer_lists(self, invocation: Invocation) -> bool:
        return any(a.startswith(b"-fsanitize=") for a in invocation.arguments)

    def assembler_targets(self, invocation: Invocation) -> tuple[bytes, ...] | None:
        targets = invocation.values("--target=", "-target")
        is_external = self.runs_gnu_as(invocation) or not all(map(_INTEGRATED.match, targets))
        return targets if is_external and invocation.search_arguments else None

    def recording(self, invocation: Invocation) -> Recording:
        is_debug = any(f.spec.spelling.startswith("-g") for f in invocation.flags)
        return Recording.ASK if is_debug else Recording.NEVER

    def lists_headers(self, invocation: Invocation) -> bool:
        del invocation
        return False  # its `-H` changes the user's depfile

    def installation_roots(self, invocation: Invocation) -> tuple[bytes, ...]:
        return tuple(filter(None, invocation.values(*_ROOTS)))

    def runs_gnu_as(self, invocation: Invocation) -> bool:
        return b"-fno-integrated-as" in invocation.arguments

    def obeys_directives(self, invocation: Invocation) -> bool:
        return invocation.product is not Product.TEXT and not invocation.language.is_header

    def knows_precompiled(self, major: int) -> bool:
        return major in PROVED_CLANG

    def resolvable(self, major: int) -> Hazard:
        return RESOLVABLE if major in _PROVED_EMBED else super().resolvable(major)


class ClangLikeCl(ClangFamily):
    """clang with `-fms-compatibility`, or for Windows, where that is the default."""

    def quoted_homes(self, names: Sequence[bytes]) -> tuple[bytes, ...]:
        return homes_of_all(names)

    def recording(self, invocation: Invocation) -> Recording:
        """CodeView holds the command line (LF_BUILDINFO), and with it flags that hpcc adds."""
        is_debug = any(f.spec.spelling.startswith("-g") for f in invocation.flags)
        return Recording.ALWAYS if is_debug else Recording.NEVER


def is_like_microsoft(words: Sequence[bytes]) -> bool:
    """Return whether a Clang with these arguments and target may look up names as cl does."""
    return any(map(_LIKE_MICROSOFT.search, words))


def homes_of_all(names: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the directories of these files: quoted names are looked up in each of them.

    A Clang like cl searches the directories of all files that include one another
    (HeaderSearch.cpp).
    """
    return tuple(dict.fromkeys(n.rpartition(b"/")[0] or b"." for n in names))


CLANG: Final = ClangFamily()
CLANG_LIKE_CL: Final = ClangLikeCl()
