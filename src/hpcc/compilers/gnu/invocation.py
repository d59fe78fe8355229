"""Reads the argv of gcc or clang into an `Invocation`, or a bypass with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.gnu.product import read_product, why_not_asked
from hpcc.compilers.invocation.interfaces import IMPORT_FLAG, INTERFACE_FLAG, imported_file
from hpcc.compilers.invocation.invocation import DepMode, Invocation, Language, Product
from hpcc.compilers.invocation.modules import (
    LISTING_FLAG,
    MAPPER_FLAG,
    MODULE_FLAGS,
    MODULES_FLAG,
    names_map_file,
)
from hpcc.compilers.invocation.precompiled import GCH_SUFFIX
from hpcc.compilers.spec.back_end import INDEX_FLAG, knows_back_end
from hpcc.compilers.spec.drivers import is_cxx_driver
from hpcc.compilers.spec.table import Bypass, Effect, Flag, Operand
from hpcc.compilers.spec.values import bad_sequence, bad_value, wp_depfile
from hpcc.core.reasons.bypass import BypassReason

# Known programs whose grammar is a different one: compilers, analysers, other caches. A target may
# stand before the name and a version behind it.
_OTHER_COMPILERS: Final = frozenset(
    b"icc icpc icx icpx dpcpp armcc armclang armclang++ aocc pgcc pgc++ pgfortran nvc nvc++"
    b" nvfortran xlc xlclang xlf suncc tcc hipcc clang-cl cl emcc em++ gfortran f77 f95 flang"
    b" flang-new ifort ifx rustc swiftc gdc ldc ldc2 ldmd2 dmd gnat go gccgo ghc ocamlopt javac"
    b" zig nim valac nasm yasm nvcc clang-tidy cppcheck include-what-you-use"
    b" ccache sccache buildcache distcc icecc".split()
)
_TARGET_BEFORE: Final = re.compile(rb"[A-Za-z0-9_.]+-")
_VERSION_BEHIND: Final = re.compile(rb"-[0-9][0-9.]*$")
# GCC manual, Overall Options: "file.c", "file.cc" ...; Clang's types::lookupTypeForExtension.
_SUFFIXES: Final = {
    b".c": Language.C,
    **dict.fromkeys((b".cc", b".cp", b".cxx", b".cpp", b".CPP", b".c++", b".C"), Language.CXX),
    **dict.fromkeys((b".S", b".sx"), Language.ASSEMBLER),
    b".s": Language.PLAIN_ASSEMBLER,
    b".i": Language.C_OUTPUT,
    b".ii": Language.CXX_OUTPUT,
    b".m": Language.OBJC,
    **dict.fromkeys((b".mm", b".M"), Language.OBJCXX),
}
_PREPROCESSED: Final = frozenset({b".mi", b".mii"})
_MODULES: Final = dict.fromkeys((b".cppm", b".ccm", b".cxxm", b".c++m"), Language.CXX_MODULE)
_LINKER_INPUT: Final = frozenset({b".o", b".a", b".so", b".lo", b".obj"})
_HEADERS: Final = {
    b".h": Language.C_HEADER,
    **dict.fromkeys(
        (b".hh", b".H", b".hp", b".hxx", b".hpp", b".HPP", b".h++"), Language.CXX_HEADER
    ),
}
_CXX_OF: Final = {Language.C: Language.CXX, Language.C_HEADER: Language.CXX_HEADER}

# On AArch64 extensions may follow: -mcpu=native+crypto.
NATIVE: Final = re.compile(rb"-m(?:arch|cpu|tune)=native.*", re.DOTALL)


def read_invocation(program: bytes, arguments: Sequence[bytes]) -> Invocation | Bypass:
    """Return what an argv with expanded response files means. Pure; never raises."""
    is_cxx = is_cxx_driver(program)
    if is_cxx is None:
        return _unknown_program(program.rpartition(b"/")[2])
    parts = GNU_FLAGS.parse(arguments)
    if isinstance(parts, Bypass):
        return parts
    product = _product(parts, is_cxx=is_cxx)
    if isinstance(product, Bypass):
        return product
    source = _source(parts, product, is_cxx=is_cxx)
    if isinstance(source, Bypass):
        return source
    name, language = source
    if language.is_preprocessed:
        return _preprocessed(parts, name, language)
    output = _output(parts, name, is_header=language.is_header)
    if isinstance(output, Bypass):
        return output
    is_printed = product is Product.TEXT and not _has_spelling(parts, "-o")
    deps = _dependencies(parts, output)
    if isinstance(deps, Bypass):
        return deps
    mode, depfile, by_wp = deps
    found = Invocation(
        language=language,
        source=name,
        output=b"" if product is Product.MESSAGES or is_printed else output,
        dep_mode=mode,
        depfile=depfile,
        deps_by_wp=by_wp,
        parts=parts,
        is_native=_is_native(parts),
        product=product,
    )
    refusal = (
        _refusal_of_header(found) or _refusal_of_modules(found) or _refusal_of_interfaces(found)
    )
    return found if refusal is None else Bypass(refusal)


def _preprocessed(
    parts: tuple[Flag | Operand, ...], name: bytes, language: Language
) -> Invocation | Bypass:
    """Return a compile without the preprocessor, which writes no depfile whatever the flags say."""
    output = _output(parts, name)
    if isinstance(output, Bypass):
        return output
    is_back_end = language is Language.IR
    if is_back_end and not knows_back_end(parts):
        return Bypass(BypassReason.THINLTO_BACKEND)
    for part in parts:
        # Whether these have an effect differs between compilers.
        if isinstance(part, Flag) and (
            part.spec.effect is Effect.FORCED_INCLUDE
            or part.spec.spelling in {"-Wp,", "-Xpreprocessor"}
            or part.raw[0] in {b"-fdirectives-only", b"-fpreprocessed"}
            or part.spec.spelling in MODULE_FLAGS  # no depfile tells what it imports
        ):
            return Bypass(BypassReason.NO_PREPROCESSING)
    found = Invocation(
        language=language,
        source=name,
        output=output,
        dep_mode=DepMode.NONE,
        depfile=None,
        deps_by_wp=False,
        parts=parts,
        is_native=_is_native(parts),
        product=Product.BACK_END if is_back_end else Product.OBJECT,
    )
    return Bypass(BypassReason.NO_PREPROCESSING) if found.concerns_precompiled else found


def _refusal_of_modules(invocation: Invocation) -> BypassReason | None:
    """Return why a compile with modules switched on is not for the cache; None if it may be."""
    if not invocation.has_modules:
        return None
    mappers = invocation.values(MAPPER_FLAG)
    if len(mappers) > 1 or not all(map(names_map_file, mappers)):
        return BypassReason.MODULE_MAPPER
    spellings = {flag.spec.spelling for flag in invocation.flags}
    # What a unit imports shows in a whole depfile. GCC lists it as source only in C++.
    is_plain = (
        MODULES_FLAG in spellings
        and invocation.language is Language.CXX
        and invocation.dep_mode is not DepMode.USER_HEADERS
        and not invocation.deps_by_wp
    )
    if not is_plain:
        return BypassReason.MODULES
    # GCC fails with the flag and without a depfile; with hpcc's own depfile it would not.
    is_odd = LISTING_FLAG in spellings and invocation.dep_mode is DepMode.NONE
    return BypassReason.ODD_DEPENDENCIES if is_odd else None


def _refusal_of_interfaces(invocation: Invocation) -> BypassReason | None:
    """Return why a compile with compiled interfaces of Clang's is not for the cache."""
    if not invocation.concerns_interfaces:
        return None
    is_interface = invocation.language is Language.CXX_MODULE
    written = invocation.values(INTERFACE_FLAG)
    is_plain = (
        invocation.language in {Language.CXX, Language.CXX_MODULE}
        and invocation.product is Product.OBJECT
        and len(written) <= int(is_interface)
        and all(map(imported_file, invocation.values(IMPORT_FLAG)))
        and not invocation.concerns_precompiled
        and not _has_spelling(invocation.parts, "-S", "-emit-llvm")
    )
    return None if is_plain else BypassReason.MODULES


def _refusal_of_header(invocation: Invocation) -> BypassReason | None:
    """Return why a compile of a header is not for the cache; None for others, and if it may be."""
    inner = invocation.inner
    if invocation.concerns_precompiled and invocation.product is not Product.OBJECT:
        return BypassReason.PCH
    if not invocation.language.is_header:
        is_one = not inner.makes_one and len(inner.used) <= 1
        return None if is_one else BypassReason.PCH
    if inner.used:
        return BypassReason.PCH
    # Without -MF, GCC makes the name of the depfile from other names.
    is_named = invocation.dep_mode is DepMode.NONE or bool(invocation.values("-MF"))
    is_other = invocation.has_side_outputs or _has_spelling(invocation.parts, "-S", "-emit-llvm")
    return None if is_named and not is_other else BypassReason.PCH


def _is_native(parts: Sequence[Flag | Operand]) -> bool:
    return any(isinstance(p, Flag) and NATIVE.fullmatch(p.raw[0]) for p in parts)


def _output(
    parts: Sequence[Flag | Operand], source: bytes, *, is_header: bool = False
) -> bytes | Bypass:
    outputs = [p.value for p in parts if isinstance(p, Flag) and p.spec.effect is Effect.OUTPUT]
    if len(outputs) > 1:
        return Bypass(BypassReason.MULTIPLE_OUTPUTS)
    suffix = _output_suffix(parts)
    default = _stem(source.rpartition(b"/")[2]) + suffix
    output = outputs[0] if outputs else source + GCH_SUFFIX if is_header else default
    if not output or output == b"-" or output.endswith(b"/") or b"\n" in output + source:
        return Bypass(BypassReason.ODD_OUTPUT)
    return output


def _unknown_program(name: bytes) -> Bypass:
    is_known = _is_other_compiler(name)
    return Bypass(BypassReason.OTHER_COMPILER if is_known else BypassReason.UNKNOWN_COMPILER)


def _is_other_compiler(name: bytes) -> bool:
    name = _VERSION_BEHIND.sub(b"", name)
    while name not in _OTHER_COMPILERS:
        target = _TARGET_BEFORE.match(name)
        if target is None:
            return False
        name = name[target.end() :]
    return True


def _output_suffix(parts: Sequence[Flag | Operand]) -> bytes:
    if _has_spelling(parts, "-emit-llvm"):
        return b".ll" if _has_spelling(parts, "-S") else b".bc"
    return b".s" if _has_spelling(parts, "-S") else b".o"


def _has_spelling(parts: Sequence[Flag | Operand], *spellings: str) -> bool:
    return any(isinstance(p, Flag) and p.spec.spelling in spellings for p in parts)


def _product(parts: Sequence[Flag | Operand], *, is_cxx: bool) -> Product | Bypass:
    """Return what the command makes, or the first reason not to cache."""
    reason = ""
    for part in parts:
        if isinstance(part, Flag):
            is_refused = part.spec.effect is Effect.REFUSE
            reason = reason or (part.spec.reason if is_refused else bad_value(part))
    product = BypassReason(reason) if reason else read_product(parts)
    if product is BypassReason.LINK and not reason:
        # A header is precompiled without `-c`, too. So is a header unit made.
        source = _source(parts, Product.OBJECT, is_cxx=is_cxx)
        if isinstance(source, Bypass) and source.reason == BypassReason.HEADER_UNIT:
            return source
        is_header = not isinstance(source, Bypass) and source[1].is_header
        product = Product.OBJECT if is_header else product
    if isinstance(product, Product):
        reason = bad_sequence(parts)
        return Bypass(BypassReason(reason)) if reason else product
    return Bypass(product)


def _source(
    parts: Sequence[Flag | Operand], product: Product, *, is_cxx: bool
) -> tuple[bytes, Language] | Bypass:
    forced: bytes | None = None
    found: list[tuple[bytes, bytes | None]] = []
    for part in parts:
        if isinstance(part, Operand):
            found.append((part.name, forced))
        elif part.spec.effect is Effect.LANGUAGE:
            forced = None if part.value == b"none" else part.value
    if len(found) != 1:
        return Bypass(BypassReason.MULTIPLE_SOURCES if found else BypassReason.NO_SOURCE)
    name, forced = found[0]
    language = _language(name, forced, is_cxx=is_cxx)
    if language in {Language.ASSEMBLER, Language.PLAIN_ASSEMBLER} and _has_spelling(parts, "-S"):
        return Bypass(BypassReason.PREPROCESS_ONLY)
    refusal = why_not_asked(parts, product, language)
    if language is not Language.IR and _has_spelling(parts, INDEX_FLAG):
        refusal = refusal or BypassReason.THINLTO_BACKEND
    if refusal is not None:
        return Bypass(refusal)
    return language if isinstance(language, Bypass) else (name, language)


def _language(name: bytes, forced: bytes | None, *, is_cxx: bool) -> Language | Bypass:
    if forced is not None:
        known = {language.value: language for language in Language}
        return known.get(forced) or _odd_language(forced)
    base = name.rpartition(b"/")[2]
    suffix = base[base.rfind(b".") :] if b"." in base else b""
    if suffix in _PREPROCESSED:
        return Bypass(BypassReason.NO_PREPROCESSING)
    if suffix == b".ixx":
        return Bypass(BypassReason.MODULES)
    if suffix in _LINKER_INPUT or not suffix or name.startswith(b"@"):
        return Bypass(BypassReason.LINKER_INPUT)
    language = _SUFFIXES.get(suffix) or _HEADERS.get(suffix) or _MODULES.get(suffix)
    if language is None:
        return Bypass(BypassReason.LANGUAGE)
    return _CXX_OF.get(language, language) if is_cxx else language


def _odd_language(name: bytes) -> Bypass:
    if name.endswith((b"-user-header", b"-system-header", b"-unit-header")):
        return Bypass(BypassReason.HEADER_UNIT)
    if name.endswith(b"-module"):
        return Bypass(BypassReason.MODULES)
    if name.endswith(b"-header"):
        return Bypass(BypassReason.PCH)
    return Bypass(
        BypassReason.NO_PREPROCESSING if name.endswith(b"cpp-output") else BypassReason.LANGUAGE
    )


def _stem(base: bytes) -> bytes:
    dot = base.rfind(b".")
    return base[:dot] if dot > 0 else base


def _dependencies(
    parts: Sequence[Flag | Operand], output: bytes
) -> tuple[DepMode, bytes | None, bool] | Bypass:
    """Return which depfile the compiler will write, by the GCC manual's rules for -MD and -MF."""
    flags = [p for p in parts if isinstance(p, Flag)]
    by_driver = {f.spec.spelling for f in flags if f.spec.effect is Effect.DEPENDENCY}
    by_wp = [w for f in flags if f.spec.spelling == "-Wp," and (w := wp_depfile(f.value))]
    if by_wp:
        # Two flags set the file name: which one wins differs between compilers and versions.
        if len(by_wp) > 1 or by_driver:
            return Bypass(BypassReason.MIXED_DEPENDENCIES)
        return DepMode(by_wp[0][0].decode()), by_wp[0][1], True
    modes = by_driver & {"-MD", "-MMD"}
    if not modes:
        # -MF or -MT without -MD is an error or a warning: the compiler reports it.
        return Bypass(BypassReason.ODD_DEPENDENCIES) if by_driver else (DepMode.NONE, None, False)
    if len(modes) > 1:
        return Bypass(BypassReason.MIXED_DEPENDENCIES)
    files = [f.value for f in flags if f.spec.spelling == "-MF"]
    depfile = files[-1] if files else _default_depfile(output)
    if len(set(files)) > 1 or depfile in {b"", b"-"} or depfile.endswith(b"/"):
        return Bypass(BypassReason.ODD_DEPENDENCIES)
    return DepMode(modes.pop()), depfile, False


def _default_depfile(output: bytes) -> bytes:
    """Return dir/foo.d for `-o dir/foo.o`; without -o both names come from the source."""
    head, slash, base = output.rpartition(b"/")
    stem = _stem(base)
    return head + slash + stem + b".d"
