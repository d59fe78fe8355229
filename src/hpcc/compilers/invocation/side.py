"""Which files a compile writes besides its output and its depfile, and how it writes them.

Sources: GCC manual, "Developer Options" (-save-temps, -fstack-usage, -fcallgraph-info), "Debugging
Options" (-gsplit-dwarf), "Preprocessor Options" (-fdeps-format) and "Instrumentation Options"
(--coverage) with "Overall Options, -dumpdir"; Clang's Driver::GetNamedOutputPath, SplitDebugName
and addPGOAndCoverageFlags. Tested with the compilers in `table.ASKED_GCC` and `table.ASKED_CLANG`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpcc.compilers.invocation.interfaces import INTERFACE_FLAG, QUIET_CLANG
from hpcc.compilers.invocation.interfaces import PROVED_CLANG as INTERFACES_OF_CLANG
from hpcc.compilers.invocation.invocation import Invocation, Language, Product
from hpcc.compilers.invocation.modules import LISTING_FLAG, LISTING_SUFFIX
from hpcc.compilers.invocation.precompiled import (
    GCH_SUFFIX,
    PCH_SUFFIX,
    PROVED_CLANG,
    PROVED_GCC,
)
from hpcc.compilers.spec.back_end import BACK_ENDS_OF_CLANG
from hpcc.compilers.spec.table import CLANG_MAJORS, GCC_MAJORS, Bypass, Effect
from hpcc.core.reasons.bypass import BypassReason

_COVERAGE: Final = frozenset({"--coverage", "-coverage", "-ftest-coverage"})
_SPLIT: Final = frozenset({"-gsplit-dwarf", "-gsplit-dwarf=split"})
_CALLGRAPHS: Final = frozenset({b"", b"=su", b"=da", b"=su,da", b"=da,su"})
_PREPROCESSED: Final = {
    Language.C: b".i",
    Language.CXX: b".ii",
    Language.OBJC: b".mi",
    Language.OBJCXX: b".mii",
}


@dataclass(frozen=True, slots=True)
class SideFile:
    """A file by the compiler's name for it. `keeps_mode`: truncates an existing file.

    `may_be_missing`: it is not always written, and never empty; an old one then stays as it is.
    """

    name: bytes
    keeps_mode: bool
    may_be_missing: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """All files that are written besides the depfile."""

    output_keeps_mode: bool
    side: tuple[SideFile, ...]


PLAIN: Final = Written(output_keeps_mode=False, side=())


def files_written(invocation: Invocation, *, is_clang: bool, major: int) -> Written | Bypass:
    """Return the files; most compiles write only their object."""
    if invocation.concerns_interfaces and not (is_clang and major in INTERFACES_OF_CLANG):
        return Bypass(BypassReason.MODULES)
    if is_clang and major not in QUIET_CLANG and _leaves_interface(invocation):
        return Bypass(BypassReason.MODULES)
    is_back_end = invocation.product is Product.BACK_END
    if is_back_end and not (is_clang and major in BACK_ENDS_OF_CLANG):
        return Bypass(BypassReason.THINLTO_BACKEND)
    written = _header_written if invocation.language.is_header else _unit_written
    return written(invocation, is_clang=is_clang, major=major)


def _leaves_interface(invocation: Invocation) -> bool:
    """Return whether a newer Clang may write an interface whose name no flag gives."""
    if invocation.language is not Language.CXX_MODULE:
        return False
    return invocation.product is Product.OBJECT and not invocation.values(INTERFACE_FLAG)


def _unit_written(invocation: Invocation, *, is_clang: bool, major: int) -> Written | Bypass:
    is_plain = not invocation.has_side_outputs and not invocation.is_assembly_output
    is_known = invocation.product is not Product.TEXT and not invocation.language.is_preprocessed
    if is_plain and is_known:
        return PLAIN
    if major not in (CLANG_MAJORS if is_clang else GCC_MAJORS):
        return Bypass(BypassReason.UNPROVED_COMPILER)
    if invocation.product is Product.TEXT:
        # GCC overwrites an old file. Clang moves a new one to its place.
        return Written(output_keeps_mode=not is_clang, side=())
    if is_plain:
        return PLAIN
    spellings = {f.spec.spelling for f in invocation.flags if f.spec.effect is Effect.SIDE_OUTPUT}
    save = {s.lstrip("-").partition("=")[2] for s in spellings if "save-temps" in s}
    if not is_clang and b"-fverbose-asm" in invocation.arguments and _shows_assembly(invocation):
        return Bypass(BypassReason.VERBOSE_ASM)  # lists the options, including hpcc's
    named = _by_output(invocation, spellings, is_clang=is_clang)
    if isinstance(named, Bypass):
        return named
    side = list(named)
    if save:
        temps = _temporaries(invocation, save, is_clang=is_clang)
        if isinstance(temps, Bypass):
            return temps
        side += (SideFile(name, keeps_mode=not is_clang) for name in temps)
    keeps = (
        bool(save) and not invocation.is_assembly_output
        if is_clang
        else (invocation.is_assembly_output)
    )
    return Written(keeps, tuple(side))


def _header_written(invocation: Invocation, *, is_clang: bool, major: int) -> Written | Bypass:
    """Return how a precompiled header is written."""
    if not is_clang:
        is_known = major in PROVED_GCC and invocation.output.endswith(GCH_SUFFIX)
        return Written(output_keeps_mode=True, side=()) if is_known else Bypass(BypassReason.PCH)
    is_named = any(f.spec.effect is Effect.OUTPUT for f in invocation.flags)
    if major not in PROVED_CLANG or not is_named or not invocation.output.endswith(PCH_SUFFIX):
        return Bypass(BypassReason.PCH)
    return PLAIN if invocation.inner.has_no_times else Bypass(BypassReason.PCH_TIMESTAMP)


def _by_output(
    invocation: Invocation, spellings: set[str], *, is_clang: bool
) -> tuple[SideFile, ...] | Bypass:
    """Return the files that have the output's name with another suffix."""
    stem = _without_suffix(invocation.output)
    endings: list[bytes] = []
    if spellings & _COVERAGE:
        endings.append(b".gcno")
    if "-fstack-usage" in spellings:
        endings.append(b".su")
    if not _CALLGRAPHS.issuperset(invocation.values("-fcallgraph-info")):
        return Bypass(BypassReason.SIDE_OUTPUT)
    if "-fcallgraph-info" in spellings:
        endings.append(b".ci")
    if any(s.startswith("-fsave-optimization-record") for s in spellings):
        if not is_clang:
            return Bypass(
                BypassReason.SIDE_OUTPUT
            )  # contains addresses in the compiler's memory, which differ each time
        endings.append(b".opt.yaml")
    if LISTING_FLAG in spellings:
        endings.append(LISTING_SUFFIX)
    side = [SideFile(stem + ending, keeps_mode=True) for ending in endings]
    if spellings & _SPLIT:
        if invocation.is_assembly_output:
            return Bypass(BypassReason.SPLIT_DWARF)  # compilers differ in its name, or write none
        is_optional = is_clang and not _asks_for_debug_information(invocation)
        side.append(SideFile(stem + b".dwo", keeps_mode=is_clang, may_be_missing=is_optional))
    names = invocation.values("--serialize-diagnostics", INTERFACE_FLAG)
    side += (SideFile(name, keeps_mode=False) for name in names)
    return tuple(side)


def _asks_for_debug_information(invocation: Invocation) -> bool:
    """Return whether a flag may turn it on; for GCC -gsplit-dwarf does, for Clang it does not."""
    levels = [f.raw[0] for f in invocation.flags if f.spec.spelling == "-g"]
    return bool(levels) and levels[-1] != b"-g0"


def _shows_assembly(invocation: Invocation) -> bool:
    return invocation.is_assembly_output or any(
        "save-temps" in f.spec.spelling for f in invocation.flags
    )


def _temporaries(
    invocation: Invocation, places: set[str], *, is_clang: bool
) -> tuple[bytes, ...] | Bypass:
    """Return the files that -save-temps writes: GCC by the output's name, Clang by the source's."""
    if len(places) > 1:
        return Bypass(BypassReason.SAVE_TEMPS)
    (place,) = places
    head, slash, base = invocation.output.rpartition(b"/")
    directory = head + slash
    if place == "cwd" or (is_clang and place == ""):
        directory = b""
    stem = _without_suffix(invocation.source.rpartition(b"/")[2] if is_clang else base)
    endings: list[bytes] = []
    if invocation.language is not Language.ASSEMBLER:
        if invocation.language not in _PREPROCESSED:
            return Bypass(BypassReason.SAVE_TEMPS)
        endings += [_PREPROCESSED[invocation.language], *((b".bc",) if is_clang else ())]
    if not invocation.is_assembly_output:
        endings.append(b".s")
    return tuple(directory + stem + ending for ending in endings)


def _without_suffix(path: bytes) -> bytes:
    head, slash, base = path.rpartition(b"/")
    dot = base.rfind(b".")
    return head + slash + (base[:dot] if dot > 0 else base)
