"""nvcc as a `CompilerFamily`: one command, in which a host GCC reads and writes all texts.

Problem: nvcc preprocesses a source once for the host and once for each architecture, compiles the
parts with programs of the toolkit, and compiles generated code again. No two objects of one source
are equal: each holds a name with the process id.

Rule: the command as a whole is one action, and any one of its objects is right. All preprocessing
is GCC's, so texts are scanned, and names are looked up, as for GCC. The depfile of nvcc names the
headers of all preprocessor runs. The second run of the host compiler reads headers that no depfile
names: they count as read, and the names under which they could be found earlier must stay absent
(`invocation.SECOND_HEADERS`).

Example: with `-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90` a header in
`#if __CUDA_ARCH__ >= 900` is an input, and so is one in `#ifndef __CUDA_ARCH__`.

What must never happen: an option, a variable or a word for another program takes part unseen. The
table of options is closed (`options`), the environment that edits commands is refused
(`cache.key.environment`), and so is every character that a shell interprets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hpcc.compilers.gnu.family import GnuFamily
from hpcc.compilers.invocation.content import ContentForm
from hpcc.compilers.invocation.dependencies import Way
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import DepMode, Invocation
from hpcc.compilers.invocation.several import SeveralSources
from hpcc.compilers.invocation.side import Written
from hpcc.compilers.nvcc.invocation import (
    APPEND,
    HOST,
    PREPEND,
    SECOND_HEADERS,
    NvccInvocation,
    expand_nvcc,
    read_nvcc,
)
from hpcc.compilers.nvcc.options import SAFE
from hpcc.compilers.scan.comments import LexMode
from hpcc.compilers.spec.drivers import without_msvc_variables
from hpcc.compilers.spec.response import ReadFile
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.private import PrivateReason

_ASKING: Final = (b"-x", b"cu", b"-Xcompiler", b"-v", b"-E", b"/dev/null", b"-o", b"/dev/null")


class NvccFamily(GnuFamily):
    """See `CompilerFamily`."""

    name: str = "nvcc"
    never_shared: str = PrivateReason.NVCC
    formats_for_terminals: bool = False
    has_blind_preprocessor: bool = False
    search_variables: tuple[bytes, ...] = (*GnuFamily.search_variables, HOST)

    def settled(self, asked: CompilerFamily) -> CompilerFamily:
        del asked
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
        return expand_nvcc(arguments, env, read_file)

    def read(self, compiler: bytes, arguments: Sequence[bytes]) -> Invocation | Bypass:
        del compiler
        return read_nvcc(arguments)

    def several_sources(self, arguments: Sequence[bytes]) -> SeveralSources | None:
        del arguments
        return None

    def key_environment(
        self, env: dict[bytes, bytes], words: Sequence[bytes]
    ) -> dict[bytes, bytes]:
        return without_msvc_variables(env, words)

    def question_environment(self, env: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        # The arguments hold what is in them.
        plain = super().question_environment(env)
        return {name: value for name, value in plain.items() if name not in {PREPEND, APPEND}}

    def command(
        self,
        argv: Sequence[bytes],
        compiler: bytes,
        invocation: Invocation,
        extra: Sequence[bytes],
        behind: Sequence[bytes],
    ) -> tuple[bytes, ...]:
        """Return the user's own line: nvcc itself adds the words of the environment."""
        del invocation
        return (compiler, *argv[1:], *extra, *behind)

    # ---- what this compiler is ----

    def host_question(self, invocation: Invocation) -> tuple[bytes, ...]:
        words = invocation.search_arguments
        return (b"--dryrun", *words, b"-x", b"cu", b"-c", b"/dev/null", b"-o", b"/dev/null")

    def search_question(self, invocation: Invocation) -> list[bytes]:
        return [*invocation.search_arguments, *_ASKING]

    def native_question(self, invocation: Invocation) -> list[bytes] | None:
        del invocation
        return None

    # ---- what a compile writes and reads ----

    def check_versions(self, invocation: Invocation, major: int) -> Bypass | None:
        """Return a bypass for flags that the host compiler lacks; `major` is its version."""
        assert isinstance(invocation, NvccInvocation)
        is_known = all(major in flag.spec.gcc for flag in invocation.host)
        return None if is_known else Bypass(BypassReason.FLAG_OF_ANOTHER_COMPILER)

    def files_written(self, invocation: Invocation, major: int) -> Written | Bypass:
        del invocation, major
        return Written(output_keeps_mode=True, side=())

    def files_looked_for(
        self, invocation: Invocation, directories: tuple[bytes, ...]
    ) -> tuple[bytes, ...] | Bypass:
        del invocation, directories
        return ()

    def headers_unlisted(self, invocation: Invocation) -> tuple[bytes, ...]:
        del invocation
        return SECOND_HEADERS

    def dependency_way(self, invocation: Invocation, *, is_recorded: bool) -> Way:
        del is_recorded
        return Way.PRIVATE_FILE if invocation.dep_mode is DepMode.NONE else Way.USER_FILE

    def dependency_flags(self, way: Way, path: bytes) -> list[bytes]:
        # Without the file, the result is not kept.
        is_possible = way is Way.PRIVATE_FILE and SAFE.fullmatch(path) and b"," not in path
        return [b"-MD", b"-MF", path] if is_possible else []

    def dependency_command(
        self, compiler: bytes, invocation: Invocation, injected: Sequence[bytes]
    ) -> list[bytes]:
        """Return a command that fails: on a full disk nothing is kept."""
        del invocation, injected
        return [compiler, b"-M"]

    def expansion_command(
        self, compiler: bytes, invocation: Invocation, *, keeps_lines: bool
    ) -> list[bytes]:
        """Return the question for the preprocessor runs (`probe.read_passes`).

        `nvcc -E` shows the text for one architecture only.
        """
        del keeps_lines
        return [compiler, b"--dryrun", *invocation.arguments]

    def macro_use_command(self, compiler: bytes, invocation: Invocation) -> list[bytes] | None:
        del compiler, invocation
        return None

    def obeys_directives(self, invocation: Invocation) -> bool:
        assert isinstance(invocation, NvccInvocation)
        return invocation.makes_object

    def knows_precompiled(self, major: int) -> bool:
        del major
        return False

    # ---- sharing ----

    def content_form(self, invocation: Invocation, major: int) -> ContentForm | None:
        del invocation, major
        return None

    def lex_mode(
        self, invocation: Invocation, major: int, *, has_hidden_flags: bool
    ) -> LexMode | None:
        del invocation, major, has_hidden_flags
        return None


NVCC: Final = NvccFamily()
