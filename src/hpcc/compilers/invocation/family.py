"""What the cache asks of a compiler family, as one Protocol.

gcc, clang and clang-cl differ in how a command line is read, in how they tell what they read, and
in what a farm must be given. The cache never asks which compiler it has: it asks the family that
travels with the compile (`Prepared.family`) for the value it needs. A new family is one module that
implements `CompilerFamily`, and one row in `hpcc.compilers.families`.

Every method is pure: what a family needs of the machine comes in as an argument, and what is to be
asked of the compiler goes out as arguments for a command. The module of cl is loaded only when a
command line of its kind arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hpcc.compilers.invocation.dependencies import Headers, Recording, Way
from hpcc.compilers.invocation.guest import GuestCommand, GuestMap
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.side import Written
from hpcc.compilers.scan.includes import Definitions, Includes
from hpcc.compilers.scan.scan import Hazard
from hpcc.compilers.spec.drivers import DriverAnswers
from hpcc.compilers.spec.response import ReadFile
from hpcc.compilers.spec.table import Bypass
from hpcc.core import Toolchain


class CommandLine(Protocol):
    """How a family's command lines are read and written."""

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
        """Return the arguments with those of response files and of the environment."""
        ...

    def read(self, compiler: bytes, arguments: Sequence[bytes]) -> Invocation | Bypass:
        """Read expanded arguments (without argv[0])."""
        ...

    def key_environment(self, env: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Return the variables that this family looks at, and those that nobody knows."""
        ...

    def question_environment(self, env: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Return the environment for a run whose arguments hold the expanded command line."""
        ...

    def command(
        self,
        argv: Sequence[bytes],
        compiler: bytes,
        invocation: Invocation,
        extra: Sequence[bytes],
        behind: Sequence[bytes],
    ) -> tuple[bytes, ...]:
        """Return what to run: the user's compile with `extra` flags, and `behind` at its end.

        `argv` is the user's own line, `invocation` what it says once it is expanded.
        """
        ...


class Identification(Protocol):
    """How a compiler is asked what it is, and what decides its output."""

    @property
    def name(self) -> str:
        """A stable word for logs and memory: `gnu`, `clang`, `msvc`."""
        ...

    @property
    def programs(self) -> tuple[bytes, ...]:
        """Programs that the driver runs, by the names it looks them up by."""
        ...

    @property
    def search_variables(self) -> tuple[bytes, ...]:
        """Variables that change the search path of headers."""
        ...

    @property
    def wraps_messages(self) -> bool:
        """True where `-fmessage-length` does what a terminal's width does."""
        ...

    @property
    def prints_links(self) -> bool:
        """True where messages hold links on a terminal that shows them."""
        ...

    def settled(self, asked: CompilerFamily) -> CompilerFamily:
        """Return the family of a compile whose driver answered that it is of `asked`."""
        ...

    def driver_files(self, answers: DriverAnswers) -> dict[bytes, None]:
        """Name the files beside the driver that it reads if they are there, in order."""
        ...

    def config_directories(self, about: bytes) -> tuple[bytes, ...]:
        """Return where the driver looks for configuration files, from its `-v`."""
        ...

    def search_question(self, invocation: Invocation) -> list[bytes]:
        """Return the arguments that make it tell its search path for this compile."""
        ...

    def native_question(self, invocation: Invocation) -> list[bytes] | None:
        """Return the arguments that make it tell what "native" means; None: it cannot."""
        ...

    def colour_question(self, invocation: Invocation) -> list[bytes]:
        """Return the arguments that make it warn about what stands on stdin."""
        ...

    def proper_program(self, invocation: Invocation) -> bytes:
        """Name the compiler proper that no identity covers; b"" where there is none."""
        ...

    def reads_sanitizer_lists(self, invocation: Invocation) -> bool:
        """Tell whether lists beside the compiler's own headers are read."""
        ...

    def assembler_targets(self, invocation: Invocation) -> tuple[bytes, ...] | None:
        """Return the named targets if an assembler other than the identity's may run, else None."""
        ...


class Files(Protocol):
    """What a compile writes and reads, and how that becomes known."""

    @property
    def pins_dates(self) -> bool:
        """True where every version takes the date from SOURCE_DATE_EPOCH."""
        ...

    def check_versions(self, invocation: Invocation, major: int) -> Bypass | None:
        """Refuse flags that this version lacks, or whose meaning in it is not known."""
        ...

    def files_written(self, invocation: Invocation, major: int) -> Written | Bypass:
        """Name what is written beside the depfile."""
        ...

    def files_looked_for(
        self, invocation: Invocation, directories: tuple[bytes, ...]
    ) -> tuple[bytes, ...] | Bypass:
        """Name the files that flags make it read where they are there."""
        ...

    def recording(self, invocation: Invocation) -> Recording:
        """Say whether the object will hold every flag."""
        ...

    def dependency_way(self, invocation: Invocation, *, is_recorded: bool) -> Way:
        """Choose how the files that a local compile reads become known."""
        ...

    def dependency_flags(self, way: Way, path: bytes) -> list[bytes]:
        """Return what a compile gets for this way; `path` is a private file."""
        ...

    def dependency_command(
        self, compiler: bytes, invocation: Invocation, injected: Sequence[bytes]
    ) -> list[bytes]:
        """Return a command that writes the whole closure to stdout as a depfile."""
        ...

    def expansion_command(
        self, compiler: bytes, invocation: Invocation, *, keeps_lines: bool
    ) -> list[bytes]:
        """Return a command that preprocesses to stdout; without line markers if it may."""
        ...

    def strip_headers(self, stderr: bytes) -> Headers:
        """Take what `Way.HEADERS` added out of a compile's messages."""
        ...

    def separates_streams(self, invocation: Invocation) -> bool:
        """Tell whether stdout holds only the list of headers."""
        ...

    def runs_gnu_as(self, invocation: Invocation) -> bool:
        """Tell whether the driver runs GNU as for what it assembles."""
        ...

    def obeys_directives(self, invocation: Invocation) -> bool:
        """Tell whether this compile reads the files that assembler directives name."""
        ...

    def doubts(self, invocation: Invocation) -> Hazard:
        """Return the hazards to look at whatever the sources hold."""
        ...

    def resolvable(self, major: int) -> Hazard:
        """Return the hazards of sources that a closer look can settle."""
        ...

    def quoted_homes(self, names: Sequence[bytes]) -> tuple[bytes, ...]:
        """Return further directories for quoted names, in a unit that read these files."""
        ...

    def includes(self, found: Includes) -> Includes:
        """Return a file's include lines as this family looks them up."""
        ...

    def definitions(self, found: Definitions) -> Definitions:
        """Do to names behind macros what `includes` does to those of directives."""
        ...

    def questions(self, found: frozenset[tuple[bool, bytes]]) -> frozenset[tuple[bool, bytes]]:
        """Do the same to names that `__has_include` asks for."""
        ...


class Travel(Protocol):
    """What a compile needs to give the same result in another checkout, or on a farm."""

    @property
    def never_shared(self) -> str:
        """Why no compile of this family is shared between checkouts; "" where some are."""
        ...

    def why_private(self, invocation: Invocation, root: bytes, major: int) -> str:
        """Say why a command line is not shared between checkouts, "" when it is."""
        ...

    def mark_depfile(self, data: bytes, root: bytes) -> bytes | None:
        """Replace the root in a depfile by a mark; None where that cannot be undone."""
        ...

    def render_depfile(self, data: bytes, root: bytes) -> bytes:
        """Return a marked depfile as the compile in the checkout at `root` writes it."""
        ...

    def image_version(
        self, program: bytes, image: Sequence[Toolchain] | None
    ) -> tuple[int, ...] | None:
        """Return the version of an image's compiler if flags depend on it; None: not known.

        Raises:
            NotPortableError: flags depend on it, and the image has no such compiler.
        """
        ...

    def guest_command(
        self,
        invocation: Invocation,
        guest: GuestMap,
        version: tuple[int, ...],
        accepts: Callable[[tuple[bytes, ...]], bool],
    ) -> GuestCommand:
        """Return the arguments for a guest whose compiler has this version.

        `accepts` tells whether that compiler, given these arguments, compiles an `empty.c` in the
        working directory without a complaint.

        Raises:
            NotPortableError: some argument means something only on this machine.
        """
        ...

    def guest_environment(self, env: Mapping[bytes, bytes], guest: GuestMap) -> dict[bytes, bytes]:
        """Return the variables of this family as the guest must spell them.

        Raises:
            NotPortableError: one of them leads to what no guest has.
        """
        ...

    def search_values(self, env: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """Return the values of the variables that a guest is given as search paths."""
        ...

    def client_stdout(
        self, invocation: Invocation, text: bytes, is_here: Callable[[bytes], bool]
    ) -> bytes:
        """Return a guest's stdout, whose paths are this machine's, as a compile here writes it."""
        ...


class CompilerFamily(CommandLine, Identification, Files, Travel, Protocol):
    """One family of compilers. Stateless, and safe to share between threads."""
