"""clang-tidy as a `CompilerFamily`: a Clang that prints findings and makes nothing.

Problem: clang-tidy does not list what it read. `clang -M` of the same flags would, but that clang
need not be on the machine, finds its own headers elsewhere, and does not define what the static
analyser defines.

Rule: clang-tidy's own preprocessor writes the depfile. `--extra-arg=-Wp,-MD,FILE` reaches it, since
clang-tidy removes only flags that begin with `-M`. So no file is missing, whatever the flags are.
Beside sources it reads `.clang-tidy` files, which no depfile lists: each directory above each file
that was read counts (`cache.inputs.config_files`).

Example: CMake runs `clang-tidy --extra-arg-before=--driver-mode=g++ a.cc -- c++ -Iinc -c a.cc`. The
search path is asked of the same clang-tidy with the same driver and search flags.

What must never happen: a question to clang-tidy is answered by another Clang, or with another
configuration. Questions therefore use `--config={}` and one check that finds nothing. What only
`clang -E` could settle stays a refusal: clang-tidy cannot preprocess to a file.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hpcc.compilers.clang.family import ClangFamily, homes_of_all, is_like_microsoft
from hpcc.compilers.gnu.family import is_bare_asm
from hpcc.compilers.invocation.analyser import Analyser
from hpcc.compilers.invocation.content import ContentForm
from hpcc.compilers.invocation.database import QUESTION_DIRECTORY, DatabaseQuestion
from hpcc.compilers.invocation.dependencies import Recording, Way
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.several import SeveralSources
from hpcc.compilers.invocation.side import SideFile, Written
from hpcc.compilers.scan.comments import LexMode
from hpcc.compilers.scan.scan import Hazard
from hpcc.compilers.spec.response import ReadFile
from hpcc.compilers.spec.table import Bypass
from hpcc.compilers.tidy.config import names_more, shows_user
from hpcc.compilers.tidy.guest import TidyAnalyser
from hpcc.compilers.tidy.invocation import TidyInvocation, read_tidy
from hpcc.compilers.tidy.options import DATABASE_NAME, read_options
from hpcc.core.reasons.private import PrivateReason

CONFIG_NAME: Final = b".clang-tidy"
# misc-include-cleaner shows where clang-format would put a missing include.
STYLE_NAMES: Final = (b".clang-format", b"_clang-format")
FLAGS_NAME: Final = b"compile_flags.txt"
# No configuration file counts, and one check finds nothing in an empty source.
_ASKING: Final = (b"--config={}", b"--checks=-*,misc-unused-alias-decls")
# Behind `--` it would also reach the driver that clang-tidy asks which words are inputs.
_VERBOSE: Final = b"--extra-arg=-v"
_ASSEMBLY: Final = Hazard.ASSEMBLER_FILE | Hazard.OPAQUE_ASSEMBLY | Hazard.ASSEMBLER_STRINGS


class TidyFamily(ClangFamily):
    """See `CompilerFamily`."""

    name: str = "clang-tidy"
    never_shared: str = PrivateReason.ANALYSER
    config_name: bytes = CONFIG_NAME
    style_names: tuple[bytes, ...] = STYLE_NAMES
    formats_for_terminals: bool = False  # `--use-color` is the user's choice
    analyser: Analyser | None = TidyAnalyser()
    # `-v` shows version, target and directories of the Clang inside.
    probe_question: tuple[bytes, ...] = (*_ASKING, _VERBOSE, b"/dev/null", b"--", b"-xc++")

    def settled(self, asked: CompilerFamily) -> CompilerFamily:
        del asked
        return self

    def variant(self, words: Sequence[bytes]) -> CompilerFamily:
        return TIDY_LIKE_CL if is_like_microsoft(words) else self

    # ---- command line ----

    def expand(
        self,
        compiler: bytes,
        arguments: tuple[bytes, ...],
        env: Mapping[bytes, bytes],
        read_file: ReadFile,
    ) -> tuple[bytes, ...] | Bypass:
        del compiler, env, read_file
        return arguments  # a response file is refused

    def database(self, arguments: tuple[bytes, ...]) -> DatabaseQuestion | None:
        options = read_options(arguments)
        if isinstance(options, Bypass) or options.words is not None or options.database is None:
            return None
        return DatabaseQuestion(options.database, options.source)

    def read(self, compiler: bytes, arguments: Sequence[bytes]) -> Invocation | Bypass:
        del compiler
        return read_tidy(arguments)

    def several_sources(self, arguments: Sequence[bytes]) -> SeveralSources | None:
        del arguments
        return None

    def command(
        self,
        argv: Sequence[bytes],
        compiler: bytes,
        invocation: Invocation,
        extra: Sequence[bytes],
        behind: Sequence[bytes],
    ) -> tuple[bytes, ...]:
        del invocation, behind
        return (compiler, *extra, *argv[1:])

    # ---- what this clang-tidy is ----

    def search_question(self, invocation: Invocation) -> list[bytes]:
        assert isinstance(invocation, TidyInvocation)
        asking = [*_ASKING, _VERBOSE]
        if invocation.directory:
            return [*asking, b"-p", QUESTION_DIRECTORY, QUESTION_DIRECTORY + b"/question.cc"]
        language = (b"-x", invocation.language.asked)
        return [*asking, b"/dev/null", b"--", *invocation.search_arguments, *language]

    def search_files(self, invocation: Invocation, directory: bytes) -> dict[bytes, bytes]:
        """Return the database of a question: its driver is found by the path that it names."""
        assert isinstance(invocation, TidyInvocation)
        if not invocation.directory:
            return {}
        source = directory + b"/question.cc"
        driver, *flags = invocation.search_arguments
        words = [driver, *flags, b"-x", invocation.language.asked, b"-c", source]
        entry = {
            "directory": _text(invocation.directory),
            "arguments": [_text(word) for word in words],
            "file": _text(source),
        }
        text = json.dumps([entry], ensure_ascii=False).encode("utf-8", "surrogateescape")
        return {DATABASE_NAME: text, b"question.cc": b""}

    def installation_roots(self, invocation: Invocation) -> tuple[bytes, ...]:
        assert isinstance(invocation, TidyInvocation)
        roots = super().installation_roots(invocation)
        if not invocation.directory:
            return roots
        # As Clang does: the parent of the directory of the driver's name. `c++` is one of `/`.
        return (*roots, posixpath.dirname(posixpath.dirname(invocation.driver[0])) or b"/")

    def native_question(self, invocation: Invocation) -> list[bytes] | None:
        del invocation
        return None

    def assembler_targets(self, invocation: Invocation) -> tuple[bytes, ...] | None:
        del invocation
        return None  # no assembler runs

    # ---- what it reads ----

    def config_files(self, invocation: Invocation) -> tuple[bytes, ...]:
        assert isinstance(invocation, TidyInvocation)
        named = invocation.options.config_file
        return () if named is None else (posixpath.join(invocation.place, named),)

    def config_names_more(self, text: bytes) -> bool:
        return names_more(text)

    def shows_more(self, messages: bytes) -> bool:
        return shows_user(messages)

    def files_looked_for(
        self, invocation: Invocation, directories: tuple[bytes, ...]
    ) -> tuple[bytes, ...] | Bypass:
        found = super().files_looked_for(invocation, directories)
        if isinstance(found, Bypass):
            return found
        # Known before the run, so that the content of a young one is noted then.
        above = (name for d in directories for name in _configs_above(d, invocation.source))
        named = (*self.config_files(invocation), *invocation.blank_files)
        return (*found, *named, *dict.fromkeys(above))

    def files_written(self, invocation: Invocation, major: int) -> Written | Bypass:
        assert isinstance(invocation, TidyInvocation)
        written = super().files_written(invocation, major)
        exports = invocation.options.exports
        if exports is None or isinstance(written, Bypass):
            return written
        name = posixpath.join(invocation.place, exports)
        return Written(
            written.output_keeps_mode, (SideFile(name, keeps_mode=True, may_be_missing=True),)
        )

    def names_watched(self, invocation: Invocation) -> tuple[bytes, ...]:
        assert isinstance(invocation, TidyInvocation)
        database = invocation.options.database
        if database is None or not invocation.directory:
            return ()
        return (posixpath.join(invocation.place, database, FLAGS_NAME),)

    def recording(self, invocation: Invocation) -> Recording:
        del invocation
        return Recording.NEVER

    def dependency_way(self, invocation: Invocation, *, is_recorded: bool) -> Way:
        del invocation, is_recorded
        return Way.PRIVATE_FILE

    def dependency_flags(self, way: Way, path: bytes) -> list[bytes]:
        # A comma would end the path. Without the file, the result is not kept.
        is_possible = way is Way.PRIVATE_FILE and b"," not in path
        return [b"--extra-arg=-Wp,-MD," + path] if is_possible else []

    def dependency_command(
        self, compiler: bytes, invocation: Invocation, injected: Sequence[bytes]
    ) -> list[bytes]:
        """Return a command that fails: on a full disk nothing is kept."""
        del invocation, injected
        return [compiler, b"-M"]

    def expansion_command(
        self, compiler: bytes, invocation: Invocation, *, keeps_lines: bool
    ) -> list[bytes]:
        """Return a command that fails: clang-tidy does not preprocess to a file."""
        del invocation, keeps_lines
        return [compiler, b"-E"]

    def separates_streams(self, invocation: Invocation) -> bool:
        """Return True: findings go to stdout when it ends, and counts of them to stderr."""
        del invocation
        return True

    def obeys_directives(self, invocation: Invocation) -> bool:
        # Text of `asm` is only a string without an assembler, but for Microsoft's form.
        return is_bare_asm(invocation)

    def resolvable(self, major: int) -> Hazard:
        del major
        return _ASSEMBLY

    # ---- sharing ----

    def content_form(self, invocation: Invocation, major: int) -> ContentForm | None:
        del invocation, major
        return None

    def lex_mode(
        self, invocation: Invocation, major: int, *, has_hidden_flags: bool
    ) -> LexMode | None:
        del invocation, major, has_hidden_flags
        return None  # comments count: `NOLINT`


class TidyLikeCl(TidyFamily):
    """clang-tidy where its Clang looks for quoted names as cl does."""

    def quoted_homes(self, names: Sequence[bytes]) -> tuple[bytes, ...]:
        return homes_of_all(names)


TIDY: Final = TidyFamily()
TIDY_LIKE_CL: Final = TidyLikeCl()


def _configs_above(directory: bytes, source: bytes) -> Iterator[bytes]:
    place = posixpath.dirname(posixpath.normpath(posixpath.join(directory, source)))
    while True:
        yield from (posixpath.join(place, name) for name in (CONFIG_NAME, *STYLE_NAMES))
        if place == posixpath.dirname(place):
            return
        place = posixpath.dirname(place)


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")
