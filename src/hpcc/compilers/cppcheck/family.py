"""cppcheck as a `CompilerFamily`: no compiler, and no list of what it read.

Problem: cppcheck writes no depfile. It looks headers up by its own rules, in several
configurations, and takes whatever a name leads to first.

Rule: every name in any text that it may read is looked up in every directory where cppcheck could
look (`cppcheck.text`, `cache.inputs.own_text`). What is there is an input by content and is read in
turn. What is not there must stay absent. So the result does not depend on which header it took.

Example: src/a.cc includes "h.h", and the flag is `-Iinc`. The inputs are src/a.cc, and src/h.h and
inc/h.h by content or by absence.

What must never happen: cppcheck reads a file that is not an input. So the installation is asked
where it looks for its own files, only versions whose lookup is known are taken, and a text that is
not literal refuses the result.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Final

from hpcc.compilers.cppcheck.guest import CppcheckAnalyser
from hpcc.compilers.cppcheck.invocation import CppcheckInvocation, read_cppcheck
from hpcc.compilers.cppcheck.options import CppcheckOptions
from hpcc.compilers.cppcheck.pieces import ANY_PIECE
from hpcc.compilers.cppcheck.text import read_names
from hpcc.compilers.gnu.family import GnuFamily
from hpcc.compilers.invocation.analyser import Analyser
from hpcc.compilers.invocation.content import ContentForm
from hpcc.compilers.invocation.database import DatabaseQuestion
from hpcc.compilers.invocation.dependencies import Unlisted, Way
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.several import SeveralSources
from hpcc.compilers.invocation.side import PLAIN, Written
from hpcc.compilers.scan.comments import LexMode
from hpcc.compilers.spec.drivers import DriverAnswers
from hpcc.compilers.spec.response import ReadFile
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.private import PrivateReason

# 2.17, as `families.family_that_answers` counts: its preprocessor was read and traced.
_PROVED: Final = frozenset({217})
_VERSION: Final = re.compile(rb'<cppcheck version="(\d{1,3})\.(\d{1,2})[."]')
# It makes cppcheck write colours into a pipe. NO_COLOR then counts, too.
_COLOURS: Final = b"CLICOLOR_FORCE"
_LOOKED: Final = re.compile(rb"^looking for library '(/.*)/std\.cfg'$", re.MULTILINE)
# Beside the program, in `cfg` there, and in the directory of its data: it stops at the first that
# has a file, and shows no further ones.
_PLACES: Final = 3
_STANDARD, _SUFFIX = b"std.cfg", b".cfg"
# It names add-ons, which are programs.
_CONFIGURATION: Final = b"cppcheck.cfg"
# Without `--cppcheck-build-dir` it looks for the results of other runs below "", which is the root.
_RESULTS: Final = b"/files.txt"
# A library defines macros, and no other text shows what these stand for. `&#` hides letters.
_MACRO: Final = re.compile(rb"has_include|__DATE|__TIME|&#")
# It reports that it has no memory left, and ends with status 0.
_GAVE_UP: Final = re.compile(rb"internalError|out of memory")
_DEFINE: Final = re.compile(
    rb"""<define(?!\w)(?:[^>"']{1,1024}+|"[^"]{0,1024}+"|'[^']{0,1024}+'){0,64}+(>)?"""
)


class CppcheckFamily(GnuFamily):
    """See `CompilerFamily`. It inherits what a command without flags of GCC means."""

    name: str = "cppcheck"
    never_shared: str = PrivateReason.ANALYSER
    formats_for_terminals: bool = False
    quotes_named_files: bool = False
    analyser: Analyser | None = CppcheckAnalyser()
    # Prints the version and where the files of cppcheck are, and finds nothing.
    probe_question: tuple[bytes, ...] = (b"--debug-lookup=all", b"--xml", b"-q", b"/dev/null")

    def settled(self, asked: CompilerFamily) -> CompilerFamily:
        del asked
        return self

    # ---- command line ----

    def expand(
        self,
        compiler: bytes,
        arguments: tuple[bytes, ...],
        env: Mapping[bytes, bytes],
        read_file: ReadFile,
    ) -> tuple[bytes, ...] | Bypass:
        del compiler, read_file
        return Bypass(BypassReason.ENVIRONMENT) if _COLOURS in env else arguments

    def database(self, arguments: tuple[bytes, ...]) -> DatabaseQuestion | None:
        del arguments
        return None

    def read(self, compiler: bytes, arguments: Sequence[bytes]) -> Invocation | Bypass:
        del compiler
        return read_cppcheck(arguments)

    def several_sources(self, arguments: Sequence[bytes]) -> SeveralSources | None:
        del arguments
        return None

    # ---- what this cppcheck is ----

    def driver_files(self, answers: DriverAnswers) -> dict[bytes, None]:
        del answers
        return {}

    def config_directories(self, about: bytes) -> tuple[bytes, ...]:
        return tuple(_LOOKED.findall(about))

    def tool_version(self, about: bytes) -> int | None:
        """Return the version, 217 for 2.17, from an answer that shows where its files are."""
        version = _VERSION.search(about)
        if version is None or len(self.config_directories(about)) != _PLACES:
            return None
        return 100 * int(version[1]) + int(version[2])

    def search_question(self, invocation: Invocation) -> list[bytes]:
        del invocation
        return []  # it searches only what flags name

    def native_question(self, invocation: Invocation) -> list[bytes] | None:
        del invocation
        return None

    # ---- what it reads ----

    def check_versions(self, invocation: Invocation, major: int) -> Bypass | None:
        del invocation
        return None if major in _PROVED else Bypass(BypassReason.UNPROVED_COMPILER)

    def files_written(self, invocation: Invocation, major: int) -> Written | Bypass:
        del invocation, major
        return PLAIN

    def files_looked_for(
        self, invocation: Invocation, directories: tuple[bytes, ...]
    ) -> tuple[bytes, ...] | Bypass:
        del directories
        options = _options(invocation)
        return (*options.lists, *options.includes)

    def unlisted(self, invocation: Invocation, places: tuple[bytes, ...]) -> Unlisted | None:
        options = _options(invocation)
        names: dict[bytes, None] = dict.fromkeys(options.lists)
        for name in (_STANDARD, *options.libraries):
            # A name with a directory is looked up in these places, too, but for an absolute one.
            for place in (b"", *(() if name.startswith(b"/") else places)):
                path = posixpath.join(place, name)
                names |= {path: None, path + _SUFFIX: None}
        above = dict.fromkeys((*places, *map(posixpath.dirname, places)))
        return Unlisted(
            directories=invocation.include_dirs,
            forced=tuple(options.includes),
            data=tuple(names),
            forbidden=(_RESULTS, *(posixpath.join(place, _CONFIGURATION) for place in above)),
            read=read_names,
        )

    def config_names_more(self, text: bytes) -> bool:
        if _MACRO.search(text):
            return True
        return any(not d[1] or ANY_PIECE.search(d[0]) for d in _DEFINE.finditer(text))

    def shows_more(self, messages: bytes) -> bool:
        return _GAVE_UP.search(messages) is not None

    def dependency_way(self, invocation: Invocation, *, is_recorded: bool) -> Way:
        del invocation, is_recorded
        return Way.OWN_TEXT

    def separates_streams(self, invocation: Invocation) -> bool:
        """Return True: progress goes to stdout, and findings to stderr."""
        del invocation
        return True

    def obeys_directives(self, invocation: Invocation) -> bool:
        del invocation
        return False

    # ---- sharing ----

    def content_form(self, invocation: Invocation, major: int) -> ContentForm | None:
        del invocation, major
        return None

    def lex_mode(
        self, invocation: Invocation, major: int, *, has_hidden_flags: bool
    ) -> LexMode | None:
        del invocation, major, has_hidden_flags
        return None  # comments count: `cppcheck-suppress`


def _options(invocation: Invocation) -> CppcheckOptions:
    assert isinstance(invocation, CppcheckInvocation)
    return invocation.options


CPPCHECK: Final = CppcheckFamily()
