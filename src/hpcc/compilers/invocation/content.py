"""Which command lines may be looked up by content, and how a content key spells them.

A content key is the same for another output name, another build directory and another place of the
project (`hpcc.cache.content`). So it leaves out what names outputs, and it holds paths relative to
places. This module is the allow-list of flags for which that is right. A command line with any
other flag has no content key and is only looked up by its exact key.

Facts, from experiments with the compilers below: without debug information neither the output's
name nor the working directory reaches the object. With `-g` the working directory does, the
output's name does not. GCC does not record the dependency flags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hpcc.compilers.invocation.invocation import DepMode, Invocation, Language, Product
from hpcc.compilers.invocation.share import MAPPED_CLANG, PROVED_CLANG, PROVED_GCC
from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.compilers.spec.values import wp_depfile

_PLAIN_EFFECTS: Final = frozenset({Effect.MODE, Effect.LANGUAGE, Effect.COLOUR, Effect.LINK})
_PATH_EFFECTS: Final = frozenset({Effect.INCLUDE_DIR, Effect.FORCED_INCLUDE})
# An assembler source that is preprocessed shows names as C does: by `__FILE__`, and with -g. One
# that is not shows them with -g only.
_LANGUAGES: Final = frozenset(
    {Language.C, Language.CXX, Language.ASSEMBLER, Language.PLAIN_ASSEMBLER}
)
_NO_DEBUG: Final = frozenset({b"-g0"})
_DEBUG: Final = re.compile(
    rb"-g(?:gdb)?[0-3]?|-gdwarf|-gdwarf-[2345]|-gdwarf(?:32|64)|-gline-(?:tables|directives)-only|-gmlt|-gz=none"
    rb"|-g(?:no-)?(?:column-info|variable-location-views|inline-line-tables|strict-dwarf|record-gcc-switches"
    rb"|statement-frontiers|as-loc-support|as-locview-support|describe-dies|simple-template-names)"
)
_MACROS: Final = frozenset({"-D", "-U"})
# Debug information holds them; the analyzer knows some, such as O_ACCMODE, by their names.
_READ_MACROS: Final = frozenset({b"-g3", b"-ggdb3", b"-fanalyzer"})
# The object holds names of files or of the directory, and no name of an output.
_NAMING: Final = re.compile(
    rb"-gz(?:=zlib(?:-gnu)?|=zstd)?|-f(?:file|macro|debug)-prefix-map=.*|-fcanon-prefix-map"
    rb"|-f(?:file|debug|coverage)-compilation-dir=.*"
    rb"|-f(?:no-)?sanitize=[a-z0-9,-]+|-f(?:no-)?sanitize-(?:recover|trap)(?:=[a-z0-9,-]+)?"
    rb"|-fsanitize-undefined-trap-on-error|-fsanitize-address-use-after-scope"
    rb"|-fsanitize-coverage=[a-z0-9,-]+",
    re.DOTALL,
)
# Line markers of a preprocessor have plain names with these, in all compilers that are proved.
_MAPPING: Final = re.compile(rb"-f(file|macro|debug)-prefix-map=([^=]*)=(.*)", re.DOTALL)
# For an assembler source the maps go to another program, and text in assembler has names in other
# places.
_MAPPED_LANGUAGES: Final = frozenset({Language.C, Language.CXX})
_OF_LLVM: Final = frozenset({"-mllvm", "-mllvm="})
_PASSED_ON: Final = _OF_LLVM | {"-Xclang"}
# What as gets and what changes only instructions and messages.
_ASSEMBLER: Final = re.compile(
    rb"-Wa(?:,(?:-m[A-Za-z0-9=._+-]+|--(?:no)?execstack|--fatal-warnings|--no-warn|-W|--(?:32|x32|64)))+"
)
_PARAMETER: Final = re.compile(rb"[a-z0-9-]+=[a-z0-9-]+")
SWITCHES: Final = (
    "aggressive-loop-optimizations|align-(?:functions|jumps|labels|loops)|allow-store-data-races"
    "|associative-math|asynchronous-unwind-tables|branch-count-reg|builtin|builtin-[a-z0-9_]+|common|concepts|conserve-(?:space|stack)"
    "|crossjumping|cse-follow-jumps|cx-limited-range|data-sections|dce|delete-dead-exceptions"
    "|delete-null-pointer-checks|devirtualize|devirtualize-speculatively|dse|dollars-in-identifiers|early-inlining"
    "|elide-constructors|elide-type|enforce-eh-specs|exceptions|expensive-optimizations"
    "|extended-identifiers|fast-math|fat-lto-objects|finite-math-only|float-store|forward-propagate"
    "|freestanding|function-cse|function-sections|gcse|gcse-after-reload|gnu-keywords|gnu-unique"
    "|gnu89-inline|hosted|if-conversion|if-conversion2|indirect-inlining|inline|inline-functions"
    "|inline-functions-called-once|inline-small-functions|ipa-[a-z-]+|ira-[a-z-]+|ivopts"
    "|jump-tables|keep-inline-functions|keep-static-consts|keep-static-functions|lax-vector-conversions|leading-underscore"
    "|lifetime-dse|loop-[a-z-]+|math-errno|merge-all-constants|merge-constants|modulo-sched|move-loop-invariants"
    "|ms-extensions|new-ttp-matching|non-call-exceptions|nonansi-builtins|omit-frame-pointer"
    "|operator-names|opt(?:imize-sibling-calls|imize-strlen)|pack-struct|partial-inlining"
    "|peel-loops|peephole2?|permissive|plan9-extensions|plt|predictive-commoning|prefetch-loop-arrays"
    "|printf-return-value|reciprocal-math|reg-struct-return|rename-registers|reorder-blocks"
    "|reorder-functions|rounding-math|rtti|schedule-insns2?|sched-[a-z-]+|section-anchors|semantic-interposition|short-enums"
    "|short-wchar|shrink-wrap|signaling-nans|signed-bitfields|signed-char|signed-zeros"
    "|single-precision-constant|sized-deallocation|aligned-new|split-loops|split-stack|split-wide-types"
    "|ssa-phiopt|stack-check|stack-clash-protection|stack-protector(?:-all|-strong|-explicit)?|stdarg-opt"
    "|store-merging|strict-aliasing|strict-enums|strict-overflow|strict-volatile-bitfields"
    "|threadsafe-statics|tracer|trapping-math|trapv|tree-[a-z-]+|unit-at-a-time|unroll-all-loops"
    "|unroll-loops|unsafe-math-optimizations|unsigned-bitfields|unsigned-char|unswitch-loops|unwind-tables"
    "|use-cxa-atexit|use-cxa-get-exception-ptr|vect-cost-model|visibility-inlines-hidden|visibility-ms-compat|weak"
    "|web|wrapv|wrapv-pointer|zero-initialized-in-bss|char8_t|coroutines|implicit-constexpr|declone-ctor-dtor"
    "|color-diagnostics|diagnostics-show-[a-z-]+|caret-diagnostics|show-column"
    "|integrated-as|slp-vectorize|vectorize|spell-checking|relaxed-template-template-args|assume-sane-operator-new"
    "|direct-access-external-data|discard-value-names|experimental-library|convergent-functions"
    "|addrsig|emulated-tls|escaping-block-tail-calls|force-emit-vtables|gnu-inline-asm|ident"
    "|pic|PIC|pie|PIE"
    # Checked with GCC and Clang by tests/integration/content/test_content_flags.py:
    "|access-control|asm|auto-inc-dec|bit-tests|blocks|caller-saves|check-new|code-hoisting|combine-stack-adjustments"
    "|compare-elim|complete-member-pointers|cprop-registers|cx-fortran-rules|debug-types-section|defer-pop|dwarf2-cfi-asm"
    "|eliminate-unused-debug-(?:symbols|types)|ext-numeric-literals|extern-tls-init|finite-loops|fold-simple-inlines"
    "|fp-int-builtin-inexact|gcse-(?:las|lm|sm)|graphite-identity|guess-branch-probability"
    "|harden-compares|harden-conditional-branches|hoist-adjacent-loads|implement-inlines|implicit-inline-templates"
    "|implicit-templates|inhibit-size-directive|inline-atomics|instrument-functions|isolate-erroneous-paths-(?:attribute|dereference)"
    "|keep-gc-roots-live|limit-debug-info|live-range-shrinkage|lra-remat|merge-debug-strings|new-inheriting-ctors"
    "|nonnull-objects|nothrow-opt|pcc-struct-return|pretty-templates|reorder-blocks-and-partition|rerun-cse-after-loop"
    "|sel-sched-pipelining|selective-scheduling2?|shrink-wrap-separate|split-paths|ssa-backprop|stack-limit|standalone-debug"
    "|strict-vtable-pointers|strong-eval-order|thread-jumps|toplevel-reorder|trampolines|unconstrained-commons"
    "|unique-section-names|var-tracking(?:-assignments|-uninit)?|variable-expansion-in-unroller|version-loops-for-strides"
    "|whole-program"
)
# What these turn off would write names, or would write something else than an object.
_OFF: Final = (
    "analyzer|autolink|branch-probabilities|lto|profile-(?:arcs|generate|use)"
    "|test-coverage|verbose-asm"
)
_FLAGS: Final = re.compile(
    (
        r"-O[0-9sgz]?|-Ofast|-g0|-pg?"
        r"|-W(?![alp],)[A-Za-z0-9+=_,-]*|-w|-pedantic|-pedantic-errors"
        r"|--?std=[a-z0-9+:]+|-ansi|-undef|-pipe|-pthread|-Qunused-arguments|-trigraphs"
        r"|-nostdinc|-nostdinc\+\+|-m(?:no-)?[a-z0-9._-]+(?:=[A-Za-z0-9._,+-]+)?"
        rf"|-f(?:no-)?(?:{SWITCHES})|-fno-(?:{_OFF})"
        r"|-fvisibility=[a-z]+|-fcf-protection(?:=[a-z]+)?|-ftemplate-depth[=-][0-9]+"
        r"|-fconstexpr-(?:depth|steps|ops-limit|loop-limit)=[0-9]+|-fbracket-depth=[0-9]+"
        r"|-f(?:excess-precision|fp-contract|ffp-contract|fp-model)=[a-z0-9]+|-ffp-contract=[a-z]+"
        r"|-ftls-model=[a-z-]+|-fabi-version=[0-9]+|-fpack-struct=[0-9]+|-fmax-errors=[0-9]+"
        r"|-ferror-limit=[0-9]+|-fmessage-length=[0-9]+|-ftabstop=[0-9]+|-falign-[a-z]+=[0-9:]+"
        r"|-ftrivial-auto-var-init=[a-z]+|-fzero-call-used-regs=[a-z-]+|-fstrict-flex-arrays(?:=[0-9])?"
        r"|-fexec-charset=[A-Za-z0-9-]+|-fwide-exec-charset=[A-Za-z0-9-]+|-fmacro-backtrace-limit=[0-9]+"
        r"|-fdiagnostics-[a-z-]+(?:=[a-z]+)?|-flax-vector-conversions=[a-z]+|-fms-compatibility(?:-version=[0-9.]+)?"
        r"|-fpatchable-function-entry=[0-9,]+|-fmin-function-alignment=[0-9]+|-fvect-cost-model=[a-z-]+"
        r"|-fsimd-cost-model=[a-z-]+|-finline-limit=[0-9]+|-stdlib=[a-z+]+"
        r"|--param=[a-z0-9-]+=[a-z0-9-]+|-fdata-sections|-ffunction-sections|-rtlib=[a-z-]+"
        r"|-f(?:abi-compat-version|constexpr-cache-depth|template-backtrace-limit|track-macro-expansion)=[0-9]+"
        r"|-f(?:ira-region|ira-algorithm|stack-limit-register|zero-init-padding-bits)=[A-Za-z0-9]+"
        r"|-freorder-blocks-algorithm=[a-z-]+"
        r"|-frandom-seed=.+|-fuse-ld=[a-z]+|-f(?:no-)?use-linker-plugin"
    ).encode()
)
# clang writes the source's name into each OpenMP region.
_ONLY_GCC: Final = frozenset({b"-fopenmp", b"-fopenmp-simd"})
# Bitcode holds the name of the source as it is spelled, and no name of an output.
_BITCODE: Final = re.compile(rb"-emit-llvm|-flto(?:=(?:thin|full))?")
_ANALYZER: Final = b"-fanalyzer"
# What Clang proper gets. `hpcc.compilers.spec.values` decides what may stand here at all: LLVM's
# switches have a number or nothing as their value.
_INNER: Final = re.compile(
    rb"-disable-(?:O0-optnone|llvm-passes|llvm-verifier|lifetime-markers)|-fno-pch-timestamp"
    rb"|-W[a-z][A-Za-z0-9_+=-]*|-target-(?:feature|cpu|abi)|[+a-z0-9][a-z0-9._-]*"
)
_WRAPPED: Final = re.compile(rb"-Wp,-[DU][^,/]*(?:,-[DU][^,/]*)*")
_WITH_GRAMMAR: Final = {"-Wa,": _ASSEMBLER, "-Wp,": _WRAPPED}
_HERE: Final = re.compile(rb"\A(?:\./+)+")  # GCC leaves it out of targets
_TARGET: Final = re.compile(rb"[^\s$#\\:]+")


@dataclass(frozen=True, slots=True)
class NamedPath:
    """A path in a content key: `name` as the user spelled it, to be replaced by a place."""

    name: bytes


@dataclass(frozen=True, slots=True)
class PrefixMap:
    """A map of the user: `new` replaces `old` at the start of names. `kind`: macro, debug or file.

    The last one is both of the others.
    """

    kind: bytes
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class ContentForm:
    """What a content key holds of a command line, in order.

    `pieces` are plain texts, paths and maps. `names_directory`: the object may hold the working
    directory and the names of all files (debug information, sanitizers, bitcode). `is_tied`: it
    holds them in a way of which nothing is known but that it is the same in the same places.
    `targets` are the words of the depfile's first rule before its colon, () without a depfile.
    `macros` are the values of -D and -U behind that letter, in their order; pieces hold them if
    debug information or GCC's analyzer reads them. `maps` are those among the pieces if no name
    shows that none of them could replace (`hpcc.cache.content.maps`), else (). `is_local`: a flag
    was only asked of compilers on this machine, and not in a guest.
    """

    pieces: tuple[bytes | NamedPath | PrefixMap, ...]
    names_directory: bool
    is_tied: bool
    targets: tuple[bytes, ...]
    macros: tuple[bytes, ...] = ()
    maps: tuple[PrefixMap, ...] = ()
    is_local: bool = False


def content_form(invocation: Invocation, *, is_clang: bool, major: int) -> ContentForm | None:
    """Return what a content key holds, or None if a flag is not proved for it."""
    if major not in (PROVED_CLANG if is_clang else PROVED_GCC):
        return None
    if invocation.language not in _LANGUAGES or invocation.product is not Product.OBJECT:
        return None
    pieces: list[bytes | NamedPath | PrefixMap] = [
        invocation.language.value,
        invocation.dep_mode.value.encode(),
        b"-MP" if any(f.spec.spelling == "-MP" for f in invocation.flags) else b"",
        b"-Wp" if invocation.deps_by_wp else b"",
    ]
    names_directory = is_tied = is_other = is_local = False
    has_macros_in_pieces = any(f.raw[0] in _READ_MACROS for f in invocation.flags)
    macros: list[bytes] = []
    for part in invocation.parts:
        if isinstance(part, Operand):
            pieces += (b"\0source", NamedPath(part.name))
            continue
        if part.spec.spelling in _MACROS and not has_macros_in_pieces:
            macros.append(part.spec.spelling[1:].encode() + part.value)
            continue
        found = _pieces(part, is_clang=is_clang)
        if found is None:
            return None
        is_debug = part.spec.spelling == "-g" and part.raw[0] not in _NO_DEBUG
        is_naming = _NAMING.fullmatch(part.raw[0]) is not None
        # Maps only change names that show, of which the preprocessor tells.
        is_map = _MAPPING.fullmatch(part.raw[0]) is not None
        is_inner, is_bitcode = (
            part.spec.spelling in _PASSED_ON,
            _is_bitcode(part, is_clang=is_clang),
        )
        is_local |= is_inner or is_bitcode or part.raw[0] == _ANALYZER
        is_other |= (is_naming and not is_map) or is_bitcode or part.spec.spelling in _OF_LLVM
        names_directory |= is_debug or is_other
        is_tied |= is_naming and part.raw[0].startswith(b"-f")
        pieces += found
    targets: tuple[bytes, ...] = ()
    if invocation.dep_mode is not DepMode.NONE:
        found_targets = _targets(invocation, is_clang=is_clang)
        if found_targets is None:
            return None
        targets = found_targets
    maps = tuple(p for p in pieces if isinstance(p, PrefixMap))
    is_unmapped = is_clang and major < MAPPED_CLANG
    is_unmapped |= invocation.language not in _MAPPED_LANGUAGES or invocation.is_assembly_output
    if is_other or is_unmapped:
        maps = ()
    return ContentForm(
        tuple(pieces), names_directory, is_tied, targets, tuple(macros), maps, is_local
    )


def is_proved_in_guests(form: ContentForm | None) -> bool:
    """Return whether the effect of all flags on names is known, in a guest as well."""
    return form is not None and not form.is_local


def _pieces(flag: Flag, *, is_clang: bool) -> tuple[bytes | NamedPath | PrefixMap, ...] | None:
    effect, spelling = flag.spec.effect, flag.spec.spelling
    if effect in {Effect.OUTPUT, Effect.DEPENDENCY}:
        return ()
    if effect in _PATH_EFFECTS:
        if flag.value.startswith((b"=", b"$")) or not flag.value:
            return None  # stands for the sysroot
        return (spelling.encode(), NamedPath(flag.value))
    if effect is Effect.LIST and spelling == "-Wp," and wp_depfile(flag.value) is not None:
        return ()
    mapping = _MAPPING.fullmatch(flag.raw[0])
    if mapping is not None:
        return (PrefixMap(mapping[1], mapping[2], mapping[3]),)
    return flag.raw if _is_proved(flag, is_clang=is_clang) else None


def _is_proved(flag: Flag, *, is_clang: bool) -> bool:
    effect, spelling, first = flag.spec.effect, flag.spec.spelling, flag.raw[0]
    if spelling in _WITH_GRAMMAR:
        return _WITH_GRAMMAR[spelling].fullmatch(first) is not None
    if spelling == "--param":
        return _PARAMETER.fullmatch(flag.value) is not None
    if spelling in _PASSED_ON:
        is_known = spelling in _OF_LLVM or _INNER.fullmatch(flag.value) is not None
        return is_clang and is_known
    if effect in _PLAIN_EFFECTS or spelling in {"-D", "-U", "-fstack-usage"}:
        return True
    if len(flag.raw) != 1 or effect not in {Effect.CODEGEN, Effect.SEARCH, Effect.PREPROCESS}:
        return False
    if any(known.fullmatch(first) for known in (_FLAGS, _DEBUG, _NAMING)):
        return True
    if is_clang:
        return _is_bitcode(flag, is_clang=True)
    return first in _ONLY_GCC or first == _ANALYZER


def _is_bitcode(flag: Flag, *, is_clang: bool) -> bool:
    return is_clang and _BITCODE.fullmatch(flag.raw[0]) is not None


def _targets(invocation: Invocation, *, is_clang: bool) -> tuple[bytes, ...] | None:
    """Return the words before the first colon of the depfile, as the compiler writes them.

    None where they are not one plain word each.
    """
    named = [f for f in invocation.flags if f.spec.spelling in {"-MT", "-MQ"}]
    if not is_clang and len({f.spec.spelling for f in named}) > 1:
        return None  # GCC writes all of -MT first
    words = [f.value for f in named] or [_default_target(invocation, is_clang=is_clang)]
    if not is_clang:
        words = [_HERE.sub(b"", word) for word in words]
    return tuple(words) if all(map(_TARGET.fullmatch, words)) else None


def _default_target(invocation: Invocation, *, is_clang: bool) -> bytes:
    if is_clang or not invocation.deps_by_wp:
        return invocation.output
    # The preprocessor proper gets no -o.
    stem, dot, _ = invocation.source.rpartition(b"/")[2].rpartition(b".")
    return (stem if dot else invocation.source.rpartition(b"/")[2]) + b".o"
