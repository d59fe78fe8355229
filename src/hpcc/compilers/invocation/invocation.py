"""The cache's view of one compile. Each family parses its command lines into this."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from hpcc.compilers.invocation.interfaces import INTERFACE_FLAGS
from hpcc.compilers.invocation.modules import MODULE_FLAGS
from hpcc.compilers.invocation.precompiled import InnerWords, inner_words
from hpcc.compilers.spec.table import Effect, Flag, Operand


class Language(enum.Enum):
    """The `-x` name of the language that a source is compiled as."""

    C = b"c"
    CXX = b"c++"
    OBJC = b"objective-c"
    OBJCXX = b"objective-c++"
    ASSEMBLER = b"assembler-with-cpp"
    PLAIN_ASSEMBLER = b"assembler"
    C_OUTPUT = b"cpp-output"
    CXX_OUTPUT = b"c++-cpp-output"
    C_HEADER = b"c-header"
    CXX_HEADER = b"c++-header"
    CXX_MODULE = b"c++-module"
    IR = b"ir"  # LLVM bitcode

    @property
    def is_preprocessed(self) -> bool:
        """Return whether the compiler reads such a source without its preprocessor."""
        return self in _PREPROCESSED

    @property
    def is_header(self) -> bool:
        """Return whether the compiler makes a precompiled header of such a source."""
        return self in {Language.C_HEADER, Language.CXX_HEADER}

    @property
    def asked(self) -> bytes:
        """Return the `-x` name for questions to the compiler, which it preprocesses."""
        if self is Language.CXX_HEADER:
            return Language.CXX.value
        return Language.C.value if self.is_preprocessed or self.is_header else self.value


_PREPROCESSED: Final = frozenset(
    {Language.PLAIN_ASSEMBLER, Language.C_OUTPUT, Language.CXX_OUTPUT, Language.IR}
)


class DepMode(enum.Enum):
    """Which dependency file the user asked for."""

    NONE = "none"
    ALL = "-MD"
    USER_HEADERS = "-MMD"


class Product(enum.Enum):
    """What a compile makes besides its depfile."""

    OBJECT = "object"  # or what stands for one: assembler source (`-S`), LLVM IR
    MESSAGES = "messages"  # `-fsyntax-only`, clang-tidy
    BACK_END = "back-end"  # an object of bitcode, with parts of other modules
    TEXT = "text"  # `-E`; without `-o` its text goes to standard output
    CUDA = "cuda"  # what one command of nvcc makes: an object, or code for graphics processors


class Dialect(enum.Enum):
    """The grammar that a command line follows."""

    GNU = "gnu"  # gcc, clang
    MSVC = "msvc"  # cl, clang-cl


@dataclass(frozen=True, kw_only=True)  # no slots: derived values are cached, since reads are many
class Invocation:
    """One compile of one source to one product. Paths are as the user spelled them.

    `output` is b"" if no file is written besides the depfile. `depfile` is the file that will be
    written; None if the user requested no depfile. `parts` are all arguments in order; `arguments`
    are the same as plain bytes. `directory` is where names are relative to, if that is another
    directory than the working directory. `blank_files` must hold nothing, since it is not known
    whether they are read.
    """

    language: Language
    source: bytes
    output: bytes
    dep_mode: DepMode
    depfile: bytes | None
    deps_by_wp: bool
    parts: tuple[Flag | Operand, ...]
    is_native: bool
    dialect: Dialect = Dialect.GNU
    product: Product = Product.OBJECT
    directory: bytes = b""
    blank_files: tuple[bytes, ...] = ()

    @cached_property
    def arguments(self) -> tuple[bytes, ...]:
        return tuple(_raw(self.parts))

    @property
    def key_arguments(self) -> tuple[bytes, ...]:
        """The arguments as a key holds them."""
        return self.arguments

    @cached_property
    def flags(self) -> tuple[Flag, ...]:
        return tuple(p for p in self.parts if isinstance(p, Flag))

    def values(self, *spellings: str) -> tuple[bytes, ...]:
        """Return the values of these flags, in order."""
        return tuple(f.value for f in self.flags if f.spec.spelling in spellings)

    @cached_property
    def include_dirs(self) -> tuple[bytes, ...]:
        """Directories that the user put on the search path, in argv order, each once."""
        dirs = (f.value for f in self.flags if f.spec.effect is Effect.INCLUDE_DIR)
        return tuple(dict.fromkeys(dirs))

    @cached_property
    def is_assembly_output(self) -> bool:
        """Return whether the output is assembler source (`-S`)."""
        return any(f.spec.spelling == "-S" for f in self.flags)

    @property
    def prints_text(self) -> bool:
        """Return whether its product goes to standard output."""
        return self.product is Product.TEXT and not self.output

    @cached_property
    def has_side_outputs(self) -> bool:
        return any(f.spec.effect is Effect.SIDE_OUTPUT for f in self.flags)

    @cached_property
    def has_modules(self) -> bool:
        """Return whether flags switch C++ modules on; the unit need not use one."""
        return any(f.spec.spelling in MODULE_FLAGS for f in self.flags)

    @cached_property
    def concerns_interfaces(self) -> bool:
        """Return whether it may write or read a compiled interface of Clang's."""
        is_module = self.language is Language.CXX_MODULE
        return is_module or any(f.spec.spelling in INTERFACE_FLAGS for f in self.flags)

    @cached_property
    def forced_includes(self) -> tuple[bytes, ...]:
        return self.values("-include", "-imacros", "FI")

    @cached_property
    def inner(self) -> InnerWords:
        """What is passed to Clang proper about precompiled headers."""
        return inner_words(self.values("-Xclang"))

    @property
    def concerns_precompiled(self) -> bool:
        """Return whether flags or the language say that one is made or used.

        GCC may use one without a flag.
        """
        inner = self.inner
        return self.language.is_header or bool(inner.includes or inner.used or inner.makes_one)

    @cached_property
    def macros(self) -> tuple[bytes, ...]:
        """What the flags define: NAME or NAME=TEXT. A superset of what `-Wp,` passes on."""
        passed = (p for v in self.values("-Wp,", "-Xpreprocessor") for p in v.split(b","))
        # cl takes `#` for the equals sign, because a variable may not contain that.
        of_cl = (_with_equals(v) for v in self.values("D"))
        return (*self.values("-D"), *of_cl, *(piece.removeprefix(b"-D") for piece in passed))

    @cached_property
    def search_arguments(self) -> tuple[bytes, ...]:
        """The flags that determine the compiler's own search path."""
        effects = {Effect.SEARCH, Effect.TOOLS}
        return tuple(_raw(f for f in self.flags if f.spec.effect in effects))

    @cached_property
    def code_arguments(self) -> tuple[bytes, ...]:
        """The flags that determine the generated code, such as -O2 and -fno-PIE."""
        return tuple(_raw(f for f in self.flags if f.spec.effect is Effect.CODEGEN))

    @cached_property
    def tool_arguments(self) -> tuple[bytes, ...]:
        """The flags that determine which programs and which of its files the driver uses."""
        return tuple(_raw(f for f in self.flags if f.spec.effect is Effect.TOOLS))


def _with_equals(macro: bytes) -> bytes:
    name, _, text = macro.partition(b"#")
    return macro if b"=" in name or name == macro else name + b"=" + text


def _raw(parts: object) -> Iterator[bytes]:
    for part in parts:  # type: ignore[attr-defined]  # an iterable of the two part types
        if isinstance(part, Operand):
            yield part.name
        else:
            yield from part.raw
