"""Reads the argv of cl or clang-cl into an `Invocation`, or a bypass with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.invocation.invocation import DepMode, Dialect, Invocation, Language
from hpcc.compilers.msvc.flags import ALL_FILES, DEPFILE, MSVC_FLAGS, TO_CLANG, MsvcSpec
from hpcc.compilers.spec.table import Arity, Bypass, Effect, Flag, Operand
from hpcc.core.reasons.bypass import BypassReason

# cpp-docs, /Tc; Clang's types::lookupTypeForExtension. To cl, others are objects or libraries.
_SUFFIXES: Final = {
    b".c": Language.C,
    **dict.fromkeys((b".cc", b".cpp", b".cxx"), Language.CXX),
}
_MODULES: Final = frozenset({b".ixx", b".cppm", b".ifc"})
# A file; excludes a directory, a stream of the process, and `:directives`.
_REPORT: Final = re.compile(rb"[^:-].*\.json", re.DOTALL | re.IGNORECASE)
# Effects of the clang flags that clang-cl accepts and whose rows in GNU's table apply.
_GNU_EFFECTS: Final = frozenset({Effect.CODEGEN, Effect.PREPROCESS, Effect.COLOUR, Effect.SEARCH})
# Behind `/clang:` every flag of clang's arrives, also these, which name or write further files:
# profiles, lists of sanitizers and of XRay, declarations as JSON, reproducers, other stores.
_OF_FILES: Final = re.compile(
    rb"-f(?:no-)?(?:cas|coverage|crash-diagnostics|cs-profile|extract-api|memory-profile|profile"
    rb"|sanitize|xray)"
)
_PLAIN_GNU: Final = re.compile(
    rb"-[fmgW].*|--?(?:no-)?(?:standard|pedantic)-.*|-pedantic", re.DOTALL
)


def read_msvc_invocation(arguments: Sequence[bytes], *, is_clang: bool) -> Invocation | Bypass:
    """Return what arguments mean after CL, _CL_ and response files are expanded. Never raises."""
    parts = parse_arguments(arguments, is_clang=is_clang)
    return parts if isinstance(parts, Bypass) else invocation_of(parts, is_clang=is_clang)


def invocation_of(parts: tuple[Flag | Operand, ...], *, is_clang: bool) -> Invocation | Bypass:
    """Return what parsed arguments mean."""
    refusal = _refusal(parts, is_clang=is_clang)
    if refusal:
        return Bypass(BypassReason(refusal))
    source = _source(parts)
    if isinstance(source, Bypass):
        return source
    name, language = source
    output = _output(parts, name)
    if isinstance(output, Bypass):
        return output
    depfile = _depfile(parts)
    if isinstance(depfile, Bypass):
        return depfile
    return Invocation(
        language=language,
        source=name,
        output=output,
        dep_mode=depfile[0],
        depfile=depfile[1],
        deps_by_wp=False,
        parts=parts,
        is_native=any(b"=native" in word for p in parts if isinstance(p, Flag) for word in p.raw),
        dialect=Dialect.MSVC,
    )


def parse_arguments(
    arguments: Sequence[bytes], *, is_clang: bool
) -> tuple[Flag | Operand, ...] | Bypass:
    """Return the flags and files in expanded arguments; a flag that is not in the table refuses."""
    parts: list[Flag | Operand] = []
    words = iter(arguments)
    for argument in words:
        if argument == b"--" and is_clang:
            parts.extend(Operand(rest) for rest in words)
            break
        found = _one(argument, is_clang=is_clang)
        if isinstance(found, (Bypass, Operand)):
            if isinstance(found, Bypass):
                return found
            parts.append(found)
            continue
        spec, value = found
        raw: tuple[bytes, ...] = (argument,)
        if spec.arity is Arity.SEPARATE or (spec.arity is Arity.EITHER and not value):
            following = next(words, None)
            if following is None:
                return Bypass(BypassReason.MISSING_VALUE)
            value, raw = following, (argument, following)
        parts.append(Flag(spec, value, raw))
    return tuple(parts)


def _one(argument: bytes, *, is_clang: bool) -> tuple[MsvcSpec, bytes] | Operand | Bypass:
    if argument[:1] not in {b"/", b"-"}:
        return Operand(argument)
    if argument == b"-":
        return Bypass(BypassReason.STDIN)
    spec = MSVC_FLAGS.find(argument[1:], is_clang=is_clang)
    if spec is None and is_clang:
        # To clang-cl an unknown /x is a file (an absolute path outside of Windows). -x may be one
        # of clang's flags.
        return Operand(argument) if argument.startswith(b"/") else _gnu(argument)
    if spec is None:
        return Bypass(BypassReason.UNKNOWN_FLAG)
    value = argument[1 + len(spec.spelling) :]
    if spec.takes_colon:
        value = value.removeprefix(b":")
    return spec, value


def _gnu(argument: bytes) -> tuple[MsvcSpec, bytes] | Bypass:
    """Read a flag that clang-cl accepts with clang's meaning and without a separate argument."""
    row = GNU_FLAGS.find(argument) if _PLAIN_GNU.fullmatch(argument) else None
    if (
        row is None
        or row.effect not in _GNU_EFFECTS
        or row.arity not in {Arity.ALONE, Arity.JOINED}
    ):
        return Bypass(
            BypassReason(
                BypassReason.UNKNOWN_FLAG
                if row is None
                else row.reason or BypassReason.UNKNOWN_FLAG
            )
        )
    spec = MsvcSpec(
        argument.decode("latin-1")[1:], Arity.ALONE, row.effect, source=row.source, is_cl=False
    )
    return spec, b""


def _is_plain(value: bytes) -> bool:
    """Tell whether a flag behind `/clang:` names no file and asks for no further output."""
    return _OF_FILES.match(value) is None and not isinstance(_gnu(value), Bypass)


def _refusal(parts: Sequence[Flag | Operand], *, is_clang: bool) -> str:
    flags = [p for p in parts if isinstance(p, Flag)]
    reports: list[bytes] = []
    for flag in flags:
        if flag.spec.effect is Effect.REFUSE:
            return flag.spec.reason
        if flag.spec.effect is Effect.SIDE_OUTPUT:
            reports.append(flag.value)
        if flag.spec.spelling == "Zi" and not is_clang:  # cl's compiles share a program database
            return BypassReason.PDB
        if flag.spec.spelling == TO_CLANG and not _is_plain(flag.value):
            return BypassReason.PASS_THROUGH
        if flag.spec.effect is Effect.INCLUDE_DIR and not flag.value:
            return BypassReason.ODD_INPUT
    if reports and (is_clang or not _REPORT.fullmatch(reports[-1]) or len(reports) > 1):
        return BypassReason.SIDE_OUTPUT
    modes = {f.spec.spelling for f in flags if f.spec.effect is Effect.MODE}
    return "" if "c" in modes else BypassReason.LINK


def _source(parts: Sequence[Flag | Operand]) -> tuple[bytes, Language] | Bypass:
    found: list[tuple[bytes, Language | None]] = []
    everything: Language | None = None
    for part in parts:
        if isinstance(part, Operand):
            found.append((part.name, None))
        elif part.spec.effect is Effect.LANGUAGE:
            named = Language.C if part.spec.spelling[1] in "Cc" else Language.CXX
            if part.spec.spelling in {"TC", "TP"}:
                everything = named
            else:
                found.append((part.value, named))
    if len(found) != 1:
        return Bypass(BypassReason.MULTIPLE_SOURCES if found else BypassReason.NO_SOURCE)
    name, of_source = found[0]
    if everything and of_source:
        return Bypass(BypassReason.LANGUAGE)
    language = everything or of_source or _by_suffix(name)
    if language is None:
        base = re.split(rb"[\\/]", name)[-1]
        is_module = base[base.rfind(b".") :].lower() in _MODULES
        return Bypass(BypassReason.MODULES if is_module else BypassReason.LINKER_INPUT)
    return name, language


def _by_suffix(name: bytes) -> Language | None:
    base = re.split(rb"[\\/]", name)[-1]
    # Only lower case: on a case-sensitive system clang-cl reads .C as C++, and cl reads it as C.
    return _SUFFIXES.get(base[base.rfind(b".") :] if b"." in base else b"")


def _output(parts: Sequence[Flag | Operand], source: bytes) -> bytes | Bypass:
    """Return the object's name: /Fo with a file or a directory, else from the source's name."""
    values = [p.value for p in parts if isinstance(p, Flag) and p.spec.effect is Effect.OUTPUT]
    if len(set(values)) > 1:
        return Bypass(BypassReason.MULTIPLE_OUTPUTS)
    base = re.split(rb"[\\/]", source)[-1]
    default = base[: base.rfind(b".")] + b".obj" if b"." in base[1:] else base + b".obj"
    value = values[0] if values else b""
    if b"\n" in source or _is_odd(value):
        return Bypass(BypassReason.ODD_OUTPUT)
    if not value:
        return default
    if value[-1:] in {b"/", b"\\"}:
        return value + default
    name = re.split(rb"[\\/]", value)[-1]
    return value if b"." in name else value + b".obj"


def _depfile(parts: Sequence[Flag | Operand]) -> tuple[DepMode, bytes | None] | Bypass:
    """Return what clang's flags behind `/clang:` say about a depfile.

    It must be named, and asked for once: clang derives other names from those of its outputs.
    """
    about = [p for p in parts if isinstance(p, Flag) and p.spec.effect is Effect.DEPENDENCY]
    if not about:
        return DepMode.NONE, None
    modes = [flag.spec.spelling for flag in about if flag.spec.spelling in ALL_FILES]
    names = [flag.value for flag in about if flag.spec.spelling == DEPFILE]
    if len(modes) != 1 or len(names) != 1 or not all(p.value or _is_alone(p) for p in about):
        return Bypass(BypassReason.PASS_THROUGH)
    name = names[0]
    if _is_odd(name) or name[-1:] in {b"/", b"\\"}:
        return Bypass(BypassReason.ODD_OUTPUT)
    return DepMode.ALL if modes[0] == ALL_FILES[0] else DepMode.USER_HEADERS, name


def _is_alone(flag: Flag) -> bool:
    return flag.spec.arity is Arity.ALONE


def _is_odd(name: bytes) -> bool:
    return b"\n" in name or name == b"-" or name.upper() in {b"NUL", b"/DEV/NULL"}
