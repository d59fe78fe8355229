"""Everything that the cache asks of a compiler family, as one Protocol.

gcc, clang and clang-cl differ in how their command lines are read, in how they report what they
read, and in what a farm needs. The cache never asks which compiler it has. It asks the family that
travels with the compile (`Prepared.family`) for the value it needs. A new family is one module that
implements `CompilerFamily`, and one row in `hpcc.compilers.families`.

For example, the cache needs to know how the files of a compile become known. It calls
`dependency_way` and gets a row of the table in `dependencies`. Then it runs what `command` and
`dependency_flags` return, and passes stderr through `strip_headers`. No step depends on a
compiler's name.

Every method is pure. A family gets the facts of the machine as arguments, and returns questions to
the compiler as arguments of a command. The module for cl is loaded only when such a command line
arrives. A family never guesses: what it does not understand is a `Bypass` with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hpcc.compilers.invocation.database import DatabaseQuestion
from hpcc.compilers.invocation.dependencies import Headers, Recording, Unlisted, Way
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.several import SeveralSources
from hpcc.compilers.invocation.side import Written
from hpcc.compilers.invocation.travel import Travel
from hpcc.compilers.scan.includes import Includes
from hpcc.compilers.scan.questions import Definitions
from hpcc.compilers.scan.scan import Hazard
from hpcc.compilers.scan.twins import TwinRule
from hpcc.compilers.spec.drivers import DriverAnswers
from hpcc.compilers.spec.response import ReadFile
from hpcc.compilers.spec.table import Bypass


class CommandLine(Protocol):
    """How a family's command lines are parsed and written."""

    @property
    def has_local_cache(self) -> bool:
        """False where compiles of this family are never looked up on this machine (cl)."""
        ...

    @property
    def has_windows_farm(self) -> bool:
        """True where a client on Windows can send compiles of this family to a farm."""
        ...

    def expand(
        self,
        compiler: bytes,
        arguments: tuple[bytes, ...],
        env: Mapping[bytes, bytes],
        read_file: ReadFile,
    ) -> tuple[bytes, ...] | Bypass:
        """Return the arguments, with those of response files and the environment inserted."""
        ...

    def database(self, arguments: tuple[bytes, ...]) -> DatabaseQuestion | None:
        """Return which entry of a compilation database expanded arguments refer to, if any."""
        ...

    def read(self, compiler: bytes, arguments: Sequence[bytes]) -> Invocation | Bypass:
        """Return what expanded arguments (without argv[0]) mean, or why they are not cached.

        The entry of a compilation database stands behind them (`with_entry`).
        """
        ...

    def several_sources(self, arguments: Sequence[bytes]) -> SeveralSources | None:
        """Return a command line with several sources, if a command per source does the same."""
        ...

    def key_environment(
        self, env: dict[bytes, bytes], words: Sequence[bytes]
    ) -> dict[bytes, bytes]:
        """Return the variables that affect this family, and all unknown variables.

        `words` are the compiler's path, its arguments and, once it is known, its target.
        """
        ...

    def question_environment(self, env: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Return the environment for a run whose arguments contain the expanded command line."""
        ...

    def command(
        self,
        argv: Sequence[bytes],
        compiler: bytes,
        invocation: Invocation,
        extra: Sequence[bytes],
        behind: Sequence[bytes],
    ) -> tuple[bytes, ...]:
        """Return the command to run: the user's compile with `extra` flags, and `behind` last.

        `argv` is the user's own line; `invocation` is its meaning after expansion.
        """
        ...


class Identification(Protocol):
    """How a compiler is identified, and what determines its output."""

    @property
    def name(self) -> str:
        """A stable name for logs and memory: `gnu`, `clang`, `msvc`."""
        ...

    @property
    def probe_question(self) -> tuple[bytes, ...]:
        """Arguments with which a tool prints the `-v` of the compiler in it; empty for a driver."""
        ...

    def host_question(self, invocation: Invocation) -> tuple[bytes, ...]:
        """Return the arguments with which nvcc shows its host compiler; empty: it has none."""
        ...

    @property
    def programs(self) -> tuple[bytes, ...]:
        """Programs that the driver runs, by the names that it looks up."""
        ...

    @property
    def program_questions(self) -> tuple[tuple[bytes, ...], ...]:
        """Arguments of compiles that together run those programs."""
        ...

    @property
    def search_variables(self) -> tuple[bytes, ...]:
        """Variables that change the search path of headers."""
        ...

    @property
    def wraps_messages(self) -> bool:
        """True where `-fmessage-length` has the effect of a terminal's width."""
        ...

    @property
    def formats_for_terminals(self) -> bool:
        """True where flags give piped messages the look that they have on a terminal."""
        ...

    @property
    def prints_links(self) -> bool:
        """True where messages contain links on a terminal that supports them."""
        ...

    @property
    def takes_shorter_names(self) -> bool:
        """True where a system's header gets its real name if that is shorter."""
        ...

    def settled(self, asked: CompilerFamily) -> CompilerFamily:
        """Return the family of a compile whose driver answered that it belongs to `asked`."""
        ...

    def variant(self, words: Sequence[bytes]) -> CompilerFamily:
        """Return the family as it behaves for this target and with these arguments."""
        ...

    def driver_files(self, answers: DriverAnswers) -> dict[bytes, None]:
        """Return the files beside the driver that it reads if they exist, in order."""
        ...

    def config_directories(self, about: bytes) -> tuple[bytes, ...]:
        """Return where the driver looks for configuration files, from its `-v`."""
        ...

    def search_question(self, invocation: Invocation) -> list[bytes]:
        """Return the arguments that make it print its search path for this compile.

        `QUESTION_DIRECTORY` in them stands for a directory with the `search_files`.
        """
        ...

    def search_files(self, invocation: Invocation, directory: bytes) -> dict[bytes, bytes]:
        """Return the files that `search_question` needs in this directory, by their names."""
        ...

    @property
    def finds_installations(self) -> bool:
        """True if its search path depends on which installations of GCC it finds."""
        ...

    def installation_roots(self, invocation: Invocation) -> tuple[bytes, ...]:
        """Return the directories of flags below which it looks for installations of GCC."""
        ...

    def native_question(self, invocation: Invocation) -> list[bytes] | None:
        """Return the arguments that make it print what "native" means; None: it cannot."""
        ...

    def colour_question(self, invocation: Invocation) -> list[bytes]:
        """Return the arguments that make it warn about its standard input."""
        ...

    def proper_program(self, invocation: Invocation) -> bytes:
        """Return the compiler proper that no identity covers; b"" if there is none."""
        ...

    def reads_sanitizer_lists(self, invocation: Invocation) -> bool:
        """Return whether it reads lists beside the compiler's own headers."""
        ...

    def assembler_targets(self, invocation: Invocation) -> tuple[bytes, ...] | None:
        """Return the named targets if an assembler other than the identity's may run, else None."""
        ...


class Files(Protocol):
    """What a compile writes and reads, and how that becomes known."""

    @property
    def pins_dates(self) -> bool:
        """True where every version reads the date from SOURCE_DATE_EPOCH."""
        ...

    @property
    def expands_preprocessed(self) -> bool:
        """True where macros and clocks in a preprocessed source (`.i`) are expanded again."""
        ...

    def check_versions(self, invocation: Invocation, major: int) -> Bypass | None:
        """Return a bypass for flags that this version lacks, or whose meaning is unknown."""
        ...

    def files_written(self, invocation: Invocation, major: int) -> Written | Bypass:
        """Return the files that are written besides the depfile."""
        ...

    def files_looked_for(
        self, invocation: Invocation, directories: tuple[bytes, ...]
    ) -> tuple[bytes, ...] | Bypass:
        """Return the files that flags make it read if they exist."""
        ...

    @property
    def config_name(self) -> bytes:
        """The name of files that count in each directory above a file that is read; b"": none."""
        ...

    @property
    def style_names(self) -> tuple[bytes, ...]:
        """The names of files that count in each directory above the source, whatever they say."""
        ...

    def config_files(self, invocation: Invocation) -> tuple[bytes, ...]:
        """Return the files of that kind that flags name."""
        ...

    def config_names_more(self, text: bytes) -> bool:
        """Return whether such a file may name further files, or flags."""
        ...

    def shows_more(self, messages: bytes) -> bool:
        """Return whether an analyser's messages show something that no key holds."""
        ...

    def names_watched(self, invocation: Invocation) -> tuple[bytes, ...]:
        """Return further files that must not appear while it runs."""
        ...

    def unlisted(self, invocation: Invocation, places: tuple[bytes, ...]) -> Unlisted | None:
        """Return what it may read if it lists no file; None: it lists them, or reads only one.

        `places` are the identity's `config_directories`.
        """
        ...

    def headers_unlisted(self, invocation: Invocation) -> tuple[bytes, ...]:
        """Return the names of headers that it includes and no depfile lists."""
        ...

    def recording(self, invocation: Invocation) -> Recording:
        """Return whether the object will contain every flag."""
        ...

    def dependency_way(self, invocation: Invocation, *, is_recorded: bool) -> Way:
        """Return how the files that a local compile reads become known."""
        ...

    @property
    def quotes_named_files(self) -> bool:
        """True if a message quotes the file that a `#line` directive names."""
        ...

    @property
    def has_blind_preprocessor(self) -> bool:
        """True if pragmas define macros in a compile that `-E` and `-M` do not know."""
        ...

    def dependency_flags(self, way: Way, path: bytes) -> list[bytes]:
        """Return the extra flags of a compile for this way; `path` is a private file."""
        ...

    def dependency_command(
        self, compiler: bytes, invocation: Invocation, injected: Sequence[bytes]
    ) -> list[bytes]:
        """Return a command that prints the whole closure to stdout as a depfile."""
        ...

    def parsing_command(
        self, compiler: bytes, invocation: Invocation, injected: Sequence[bytes]
    ) -> list[bytes]:
        """Return a slower command for the same that obeys the pragmas of the source, too."""
        ...

    def expansion_command(
        self, compiler: bytes, invocation: Invocation, *, keeps_lines: bool
    ) -> list[bytes]:
        """Return a command that preprocesses to stdout, if possible without line markers."""
        ...

    def macro_use_command(self, compiler: bytes, invocation: Invocation) -> list[bytes] | None:
        """Return a command that writes `#define NAME` or `#undef NAME` for each macro in use."""
        ...

    def strip_headers(self, stderr: bytes) -> Headers:
        """Return what `Way.HEADERS` added to a compile's messages, and the messages without it."""
        ...

    def separates_streams(self, invocation: Invocation) -> bool:
        """Return whether stdout holds only the list of headers."""
        ...

    @property
    def twin_rule(self) -> TwinRule | None:
        """How the compiler recognises two files of one content as one; None if unknown."""
        ...

    def runs_gnu_as(self, invocation: Invocation) -> bool:
        """Return whether the driver runs GNU as to assemble."""
        ...

    def obeys_directives(self, invocation: Invocation) -> bool:
        """Return whether this compile reads the files that assembler directives name."""
        ...

    def knows_precompiled(self, major: int) -> bool:
        """Return whether units of this version that use a precompiled header may be kept."""
        ...

    def doubts(self, invocation: Invocation) -> Hazard:
        """Return the hazards to check regardless of what the sources contain."""
        ...

    def resolvable(self, major: int) -> Hazard:
        """Return the hazards of sources that a closer analysis can settle."""
        ...

    def quoted_homes(self, names: Sequence[bytes]) -> tuple[bytes, ...]:
        """Return further directories to search for quoted names in a unit that read these files."""
        ...

    def includes(self, found: Includes) -> Includes:
        """Return a file's include lines as this family looks them up."""
        ...

    def definitions(self, found: Definitions) -> Definitions:
        """Return names behind macros, changed as `includes` changes those of directives."""
        ...

    def questions(self, found: frozenset[tuple[bool, bytes]]) -> frozenset[tuple[bool, bytes]]:
        """Return names that `__has_include` asks for, changed in the same way."""
        ...


class CompilerFamily(CommandLine, Identification, Files, Travel, Protocol):
    """One family of compilers. Stateless, and safe to share between threads."""
