"""gcc as a `CompilerFamily`. clang's family inherits what both do in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hpcc.compilers.gnu.driver_files import specs_names
from hpcc.compilers.gnu.headers import strip_headers, without_outputs
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.gnu.several import read_several
from hpcc.compilers.invocation.analyser import Analyser
from hpcc.compilers.invocation.comment_flags import lex_mode
from hpcc.compilers.invocation.content import ContentForm, content_form
from hpcc.compilers.invocation.database import DatabaseQuestion
from hpcc.compilers.invocation.dependencies import Headers, Recording, Unlisted, Way
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.guest import GuestCommand, GuestMap, guest_arguments
from hpcc.compilers.invocation.guest_names import name_flags
from hpcc.compilers.invocation.inputs import files_looked_for
from hpcc.compilers.invocation.invocation import DepMode, Invocation, Language, Product
from hpcc.compilers.invocation.precompiled import PROVED_GCC
from hpcc.compilers.invocation.several import SeveralSources
from hpcc.compilers.invocation.share import why_private
from hpcc.compilers.invocation.share_text import (
    mark_depfile,
    render_depfile_for,
    respelled_depfile,
)
from hpcc.compilers.invocation.side import Written, files_written
from hpcc.compilers.invocation.versions import check_versions
from hpcc.compilers.scan.comments import LexMode
from hpcc.compilers.scan.includes import Includes
from hpcc.compilers.scan.questions import Definitions
from hpcc.compilers.scan.scan import RESOLVABLE, Hazard
from hpcc.compilers.scan.shown_names import visible_names
from hpcc.compilers.scan.twins import TwinRule
from hpcc.compilers.spec.drivers import (
    INCLUDE_ENV,
    ROOT_ENV,
    DriverAnswers,
    is_of_nvcc,
    without_cl_variables,
    without_msvc_variables,
)
from hpcc.compilers.spec.response import ReadFile, expand_responses
from hpcc.compilers.spec.table import Bypass
from hpcc.core import Toolchain

# With these, `__asm` needs no string, so its text looks like prose.
_BARE_ASM: Final = frozenset({b"-fasm-blocks", b"-fms-extensions", b"-fms-compatibility"})
_PROPER: Final = {Language.OBJC: b"cc1obj", Language.OBJCXX: b"cc1objplus"}


class GnuFamily:
    """gcc and g++, and the base of clang's family; see `CompilerFamily`."""

    name: str = "gnu"
    is_clang_like: bool = False
    has_local_cache: bool = True
    has_windows_farm: bool = False
    never_shared: str = ""
    twin_rule: TwinRule | None = TwinRule.SECOND
    pins_dates: bool = True
    wraps_messages: bool = False
    prints_links: bool = True
    takes_shorter_names: bool = True
    analyser: Analyser | None = None
    expands_preprocessed: bool = False
    has_blind_preprocessor: bool = True
    quotes_named_files: bool = True
    finds_installations: bool = False
    programs: tuple[bytes, ...] = (b"cc1", b"cc1plus", b"as", b"collect2", b"objcopy")
    program_questions: tuple[tuple[bytes, ...], ...] = ((b"-xc",), (b"-xc++",))
    search_variables: tuple[bytes, ...] = (*INCLUDE_ENV, *ROOT_ENV)
    probe_question: tuple[bytes, ...] = ()
    formats_for_terminals: bool = True
    config_name: bytes = b""
    style_names: tuple[bytes, ...] = ()

    def settled(self, asked: CompilerFamily) -> CompilerFamily:
        return asked

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
        del compiler, env
        return expand_responses(arguments, read_file)

    def database(self, arguments: tuple[bytes, ...]) -> DatabaseQuestion | None:
        del arguments
        return None

    def read(self, compiler: bytes, arguments: Sequence[bytes]) -> Invocation | Bypass:
        return read_invocation(compiler, arguments)

    def several_sources(self, arguments: Sequence[bytes]) -> SeveralSources | None:
        return read_several(arguments)

    def key_environment(
        self, env: dict[bytes, bytes], words: Sequence[bytes]
    ) -> dict[bytes, bytes]:
        env = without_msvc_variables(env, words)
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
        del argv
        return (compiler, *invocation.arguments, *extra, *behind)

    # ---- what this compiler is ----

    def host_question(self, invocation: Invocation) -> tuple[bytes, ...]:
        del invocation
        return ()

    def driver_files(self, answers: DriverAnswers) -> dict[bytes, None]:
        found = specs_names(answers.about, answers.searched, answers.library_path)
        return dict.fromkeys(found)

    def config_directories(self, about: bytes) -> tuple[bytes, ...]:
        del about
        return ()

    def search_question(self, invocation: Invocation) -> list[bytes]:
        question = [
            b"-x",
            invocation.language.asked,
            b"-v",
            b"-E",
            b"/dev/null",
            b"-o",
            b"/dev/null",
        ]
        return [*invocation.search_arguments, *question]

    def search_files(self, invocation: Invocation, directory: bytes) -> dict[bytes, bytes]:
        del invocation, directory
        return {}

    def installation_roots(self, invocation: Invocation) -> tuple[bytes, ...]:
        del invocation
        return ()  # its search path names directories that do not exist, too

    def native_question(self, invocation: Invocation) -> list[bytes] | None:
        question = [b"-###", b"-S", b"-o", b"/dev/null", b"-x", invocation.language.asked]
        return [*invocation.search_arguments, *question, b"/dev/null"]

    def colour_question(self, invocation: Invocation) -> list[bytes]:
        del invocation
        return [b"-x", b"c", b"-E", b"-o", b"/dev/null", b"-"]

    def proper_program(self, invocation: Invocation) -> bytes:
        return _PROPER.get(invocation.language, b"")

    def reads_sanitizer_lists(self, invocation: Invocation) -> bool:
        del invocation
        return False

    def assembler_targets(self, invocation: Invocation) -> tuple[bytes, ...] | None:
        del invocation
        return None

    # ---- what a compile writes and reads ----

    def check_versions(self, invocation: Invocation, major: int) -> Bypass | None:
        return check_versions(invocation, is_clang=self.is_clang_like, major=major)

    def files_written(self, invocation: Invocation, major: int) -> Written | Bypass:
        return files_written(invocation, is_clang=self.is_clang_like, major=major)

    def files_looked_for(
        self, invocation: Invocation, directories: tuple[bytes, ...]
    ) -> tuple[bytes, ...] | Bypass:
        return files_looked_for(invocation, is_clang=self.is_clang_like, directories=directories)

    def config_files(self, invocation: Invocation) -> tuple[bytes, ...]:
        del invocation
        return ()

    def config_names_more(self, text: bytes) -> bool:
        del text
        return True

    def shows_more(self, messages: bytes) -> bool:
        del messages
        return False

    def names_watched(self, invocation: Invocation) -> tuple[bytes, ...]:
        del invocation
        return ()

    def unlisted(self, invocation: Invocation, places: tuple[bytes, ...]) -> Unlisted | None:
        del invocation, places
        return None

    def headers_unlisted(self, invocation: Invocation) -> tuple[bytes, ...]:
        del invocation
        return ()

    def recording(self, invocation: Invocation) -> Recording:
        del invocation
        return Recording.NEVER

    def dependency_way(self, invocation: Invocation, *, is_recorded: bool) -> Way:
        if invocation.language.is_preprocessed:
            return Way.OWN_TEXT
        match invocation.dep_mode:
            case DepMode.NONE:
                return Way.SECOND_RUN if is_recorded else Way.PRIVATE_FILE
            case DepMode.ALL:
                return Way.USER_FILE
            case DepMode.USER_HEADERS:
                return Way.HEADERS if self.lists_headers(invocation) else Way.SECOND_RUN

    def lists_headers(self, invocation: Invocation) -> bool:
        """Return whether `-H` lists what a compile reads and leaves its outputs unchanged."""
        recorders = ("-g", "-frecord-gcc-switches")
        is_debug = any(f.spec.spelling.startswith(recorders) for f in invocation.flags)
        # `-H` omits forced headers and their include guards. A specs file may add -g.
        return not (is_debug or invocation.forced_includes or invocation.tool_arguments)

    def dependency_flags(self, way: Way, path: bytes) -> list[bytes]:
        match way:
            case Way.PRIVATE_FILE:
                return [b"-MD", b"-MF", path]
            case Way.HEADERS:
                return [b"-H"]
            case _:
                return []

    def dependency_command(
        self, compiler: bytes, invocation: Invocation, injected: Sequence[bytes]
    ) -> list[bytes]:
        return [compiler, *without_outputs(invocation), *injected, b"-M"]

    def parsing_command(
        self, compiler: bytes, invocation: Invocation, injected: Sequence[bytes]
    ) -> list[bytes]:
        to_stdout = (b"-fsyntax-only", b"-MD", b"-MF", b"/dev/stdout")
        return [compiler, *without_outputs(invocation), *injected, *to_stdout]

    def expansion_command(
        self, compiler: bytes, invocation: Invocation, *, keeps_lines: bool
    ) -> list[bytes]:
        mode = (b"-E",) if keeps_lines else (b"-E", b"-P")
        return [compiler, *without_outputs(invocation), *mode]

    def macro_use_command(self, compiler: bytes, invocation: Invocation) -> list[bytes] | None:
        if self.is_clang_like:
            return None
        return [compiler, *without_outputs(invocation), b"-E", b"-dU"]

    def strip_headers(self, stderr: bytes) -> Headers:
        return strip_headers(stderr)

    def separates_streams(self, invocation: Invocation) -> bool:
        del invocation
        return False

    # ---- hazards ----

    def runs_gnu_as(self, invocation: Invocation) -> bool:
        del invocation
        return True

    def obeys_directives(self, invocation: Invocation) -> bool:
        # What a precompiled header says to the assembler, its users say.
        is_object = invocation.product is Product.OBJECT and not invocation.language.is_header
        return is_object and not invocation.is_assembly_output

    def knows_precompiled(self, major: int) -> bool:
        return major in PROVED_GCC

    def doubts(self, invocation: Invocation) -> Hazard:
        if invocation.language is Language.ASSEMBLER:
            return Hazard.ASSEMBLER_FILE
        return Hazard.OPAQUE_ASSEMBLY if is_bare_asm(invocation) else Hazard.NONE

    def resolvable(self, major: int) -> Hazard:
        del major
        return RESOLVABLE & ~Hazard.EMBED

    # ---- include lines ----

    def quoted_homes(self, names: Sequence[bytes]) -> tuple[bytes, ...]:
        del names
        return ()

    def includes(self, found: Includes) -> Includes:
        return found

    def definitions(self, found: Definitions) -> Definitions:
        return found

    def questions(self, found: frozenset[tuple[bool, bytes]]) -> frozenset[tuple[bool, bytes]]:
        return found

    # ---- sharing between checkouts ----

    def why_private(self, invocation: Invocation, root: bytes, major: int) -> str:
        return why_private(invocation, root, is_clang=self.is_clang_like, major=major)

    def mark_depfile(self, data: bytes, root: bytes) -> bytes | None:
        return mark_depfile(data, root, is_clang=self.is_clang_like)

    def render_depfile(self, data: bytes, root: bytes) -> bytes:
        return render_depfile_for(data, root, is_clang=self.is_clang_like)

    # ---- content keys ----

    def content_form(self, invocation: Invocation, major: int) -> ContentForm | None:
        return content_form(invocation, is_clang=self.is_clang_like, major=major)

    def lex_mode(
        self, invocation: Invocation, major: int, *, has_hidden_flags: bool
    ) -> LexMode | None:
        return lex_mode(
            invocation,
            is_clang=self.is_clang_like,
            major=major,
            has_hidden_flags=has_hidden_flags,
        )

    def respelled_depfile(
        self,
        data: bytes,
        old_targets: tuple[bytes, ...],
        new_targets: tuple[bytes, ...],
        rename: Callable[[bytes], bytes],
    ) -> bytes | None:
        return respelled_depfile(
            data, old_targets, new_targets, rename, is_clang=self.is_clang_like
        )

    def visible_names(self, text: bytes, source: bytes) -> tuple[bytes, ...] | None:
        return visible_names(text, source, is_clang=self.is_clang_like)

    # ---- a farm ----

    def image_version(
        self, program: bytes, image: Sequence[Toolchain] | None
    ) -> tuple[int, ...] | None:
        del program, image
        return None

    def guest_command(
        self,
        invocation: Invocation,
        guest: GuestMap,
        version: tuple[int, ...],
        accepts: Callable[[tuple[bytes, ...]], bool],
    ) -> GuestCommand:
        del accepts
        before, behind = name_flags(
            invocation, guest, is_clang=self.is_clang_like, major=version[0]
        )
        arguments = guest_arguments(invocation, guest, behind)
        return GuestCommand((*before, *arguments), (*before, *behind))

    def guest_environment(self, env: Mapping[bytes, bytes], guest: GuestMap) -> dict[bytes, bytes]:
        del env, guest
        return {}

    def search_values(self, env: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        del env
        return ()

    def client_stdout(
        self, invocation: Invocation, text: bytes, is_here: Callable[[bytes], bool]
    ) -> bytes:
        del invocation, is_here
        return text


def is_bare_asm(invocation: Invocation) -> bool:
    """Return whether flags allow `__asm` without a string."""
    return not _BARE_ASM.isdisjoint(invocation.arguments)


GNU: Final = GnuFamily()
