"""Which command lines give the same object in every clone, and how a key spells them.

This is an allow-list. The two-clone test in tests/integration/sharing proves each row with the
compilers below. A command line that is not on it stays private and gets no flags from hpcc.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.invocation.interfaces import INTERFACE_FLAG, INTERFACE_FLAGS
from hpcc.compilers.invocation.invocation import Invocation, Language, Product
from hpcc.compilers.invocation.modules import MAPPER_FLAG, MODULE_FLAGS
from hpcc.compilers.invocation.precompiled import EMIT, NO_TIMES, PAIRS
from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.core.reasons.private import PrivateReason

PROVED_GCC: Final = frozenset({12, 13, 14})
PROVED_CLANG: Final = frozenset({14, 17, 19})
# Clang 14 writes the place of a lambda or of an unnamed type as it is into the pretty name of a
# function. Text that holds the size or a hash of that name does not show it.
MAPPED_CLANG: Final = 17

# Stands for the root. No argument and no file name can contain it.
ROOT_MARK: Final = b"\0"

# The root in debug information. A relative name there is resolved from the compilation directory,
# which may be another one, and then debuggers do not find the source. This path is absolute, and a
# debugger that is started in the root finds all sources.
DEBUG_ROOT: Final = b"/proc/self/cwd"

# What prefix maps, depfiles and messages spell literally. "=" would end a map's first half.
_PLAIN_ROOT: Final = re.compile(rb"(?:/[A-Za-z0-9._+~@ \x80-\xff-]+)+")
_PATH_EFFECTS: Final = frozenset({Effect.OUTPUT, Effect.INCLUDE_DIR, Effect.FORCED_INCLUDE})
_TARGETS: Final = frozenset({"-MT", "-MQ"})
_PATH_FLAGS: Final = frozenset({"-MF", MAPPER_FLAG, INTERFACE_FLAG, *_TARGETS})
_OF_MODULES: Final = MODULE_FLAGS | INTERFACE_FLAGS
_PASSED_ON: Final = frozenset({Effect.MODE, Effect.LANGUAGE, Effect.DEPENDENCY, Effect.COLOUR})
_LANGUAGES: Final = frozenset(
    {
        Language.C,
        Language.CXX,
        Language.C_HEADER,
        Language.CXX_HEADER,
        Language.CXX_MODULE,
    }
)
# What Clang proper gets about precompiled headers, besides `PAIRS`.
_INNER: Final = "-Xclang"
_INNER_WORDS: Final = frozenset({EMIT, NO_TIMES})

_SHARED_FLAGS: Final = re.compile(
    rb"-O[0123sgz]?|-Ofast"
    # -g0 to -g3 with DWARF 4 and 5. -gz and split DWARF are not on the list.
    rb"|-g(?:gdb)?[0-3]?|-gdwarf-[45]"
    # Warnings only reach stderr. -Wa, -Wl, and -Wp, are not warnings.
    rb"|-W(?![alp],)[A-Za-z0-9+=-]*|-w|-pedantic|-pedantic-errors"
    rb"|-std=[a-z0-9+]+|-stdlib=lib(?:std)?c\+\+|-ansi|-pipe|-pthread|-Qunused-arguments"
    rb"|-m64|-m(?:arch|tune)=[a-z0-9._-]+|-m(?:sse|avx)[a-z0-9.]*"
    rb"|-f(?:PIC|pic|PIE|pie|no-pic|no-pie)"
    rb"|-f(?:no-)?(?:common|exceptions|rtti|strict-aliasing|omit-frame-pointer|builtin|wrapv|permissive"
    rb"|function-sections|data-sections|unwind-tables|asynchronous-unwind-tables|math-errno"
    rb"|fast-math|unroll-loops|inline|signed-char|short-enums|plt|visibility-inlines-hidden"
    rb"|stack-protector|delete-null-pointer-checks|trapping-math|pch-instantiate-templates)"
    rb"|-fstack-protector-(?:all|strong)|-fvisibility=[a-z]+|-ffreestanding|-fstack-clash-protection"
    rb"|-fcf-protection(?:=[a-z]+)?"
)


def is_plain_root(root: bytes) -> bool:
    """Return whether a root has only characters that no tool interprets."""
    return _PLAIN_ROOT.fullmatch(root) is not None and not root.endswith(b" ") and _is_utf8(root)


def prefix_maps(root: bytes, cwd: bytes) -> tuple[bytes, ...]:
    """Return flags that make the paths a compiler records relative to the root.

    The trailing slash excludes neighbours such as ROOT-2/, which a bare prefix would match. Only
    the compilation directory is ever spelled without it.
    """
    maps = (
        b"-fmacro-prefix-map=" + root + b"/=./",
        b"-fdebug-prefix-map=" + root + b"/=" + DEBUG_ROOT + b"/",
    )
    return (*maps, b"-fdebug-prefix-map=" + root + b"=" + DEBUG_ROOT) if cwd == root else maps


def under_root(path: bytes, root: bytes) -> bytes | None:
    """Return the path below the root; b"" for the root itself, None for a path outside of it."""
    if path == root:
        return b""
    return path[len(root) :] if path.startswith(root + b"/") else None


def why_private(invocation: Invocation, root: bytes, *, is_clang: bool, major: int) -> str:
    """Return why a command line is not on the allow-list; "" if it is."""
    if major not in (PROVED_CLANG if is_clang else PROVED_GCC):
        return PrivateReason.UNPROVED_COMPILER
    is_object = invocation.product is Product.OBJECT and not invocation.is_assembly_output
    if invocation.language not in _LANGUAGES or not is_object:
        return PrivateReason.FLAGS
    if not all(map(_is_shared, invocation.flags)):
        return PrivateReason.FLAGS
    if not _are_inner_words_shared(invocation):
        return PrivateReason.FLAGS
    arguments = canonical_arguments(invocation, root)
    if arguments is None:
        return PrivateReason.ROOT_IN_ARGUMENT
    shows_names = is_clang and major < MAPPED_CLANG
    if shows_names and any(ROOT_MARK in argument for argument in arguments):
        return PrivateReason.UNPROVED_COMPILER
    return ""


def canonical_arguments(invocation: Invocation, root: bytes) -> tuple[bytes, ...] | None:
    """Return the arguments with `ROOT_MARK` for the root where a path begins with it.

    None when an argument contains the root elsewhere. The meaning of such text is not known, so one
    key could stand for several compiles.
    """
    result: list[bytes] = []
    word = b""  # what takes the next word behind `_INNER` as its value
    for part in invocation.parts:
        pieces = (part.name,) if isinstance(part, Operand) else part.raw
        is_inner = isinstance(part, Flag) and part.spec.spelling == _INNER
        if any(root in piece for piece in pieces):
            mapped = _with_mark(part, root, is_file=is_inner and word in PAIRS)
            if mapped is None:
                return None
            pieces = mapped
        if is_inner:
            word = b"" if word in PAIRS else pieces[-1]
        result += pieces
    return tuple(result)


def _with_mark(part: Flag | Operand, root: bytes, *, is_file: bool) -> tuple[bytes, ...] | None:
    """Return the pieces of a part with the mark; None if it is not a path. `is_file`: it is one."""
    value = part.name if isinstance(part, Operand) else part.value
    if isinstance(part, Flag) and not (
        is_file or part.spec.effect in _PATH_EFFECTS or part.spec.spelling in _PATH_FLAGS
    ):
        return None
    rest = under_root(value, root)
    if rest is None or root in rest:
        return None
    if isinstance(part, Operand):
        return (ROOT_MARK + rest,)
    if len(part.raw) > 1:
        return (part.raw[0], ROOT_MARK + rest)
    return (part.spec.spelling.encode() + ROOT_MARK + rest,)


def _is_shared(flag: Flag) -> bool:
    effect = flag.spec.effect
    if flag.spec.spelling in _TARGETS:
        # With unquoted blanks one name becomes two targets, and line breaks depend on both.
        return not any(c in flag.value for c in b" \t\n")
    if effect in _PATH_EFFECTS or effect in _PASSED_ON or flag.spec.spelling in _OF_MODULES:
        return True
    if effect is Effect.PREPROCESS and flag.spec.spelling in {"-D", "-U"}:
        return True
    if flag.spec.spelling == _INNER:
        return True  # see `_are_inner_words_shared`
    return len(flag.raw) == 1 and _SHARED_FLAGS.fullmatch(flag.raw[0]) is not None


def _are_inner_words_shared(invocation: Invocation) -> bool:
    words = iter(invocation.values(_INNER))
    return all(word in _INNER_WORDS or (word in PAIRS and next(words, b"")) for word in words)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
