"""The options of nvcc as data, and the one parser that reads them.

This is an allow-list. Each row changes only what the compile makes, or names something that is read
here. An option that is not in it refuses the command, also one for the host compiler: what
`-forward-unknown-to-host-compiler` and `-Xcompiler` pass on must be a flag of GCC's table that
generates code or warns. Source: `nvcc --help` of 13.0, and `nvcc --dryrun` for each spelling.

nvcc writes its commands as text for `/bin/sh`, and does not quote them for it: `-DX=$(id)` runs a
program. So a word may hold only characters that no shell interprets. It also divides the values of
most options at commas, and drops `=` in front of a value (`-I=a,b`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.spec.table import Arity, Bypass, Effect, Flag, FlagSpec, Operand
from hpcc.core.reasons.bypass import BypassReason

_SOURCE: Final = "nvcc --help, 13.0"
_SAFE: Final = rb"[\w@%+=:,./-]"
SAFE: Final = re.compile(_SAFE + rb"+")
"""A word that a shell takes as it is, also without quotes."""
# nvcc puts the value in double quotes, with a backslash before each quote of it.
_MACRO: Final = re.compile(rb'[A-Za-z_]\w*(?:=(?:%s|"(?:%s|[ ()\[\]])*"|[()])*)?' % (_SAFE, _SAFE))
_PATH: Final = re.compile(rb"[\w@%+=:./-]+")
_ARCHITECTURES: Final = re.compile(rb"(?!.*native)[\w=,\[\]-]+")
# Another process finds another file there.
_PROCESS: Final = re.compile(rb"/proc(?![\w.-])")
_NUMBER: Final = re.compile(rb"\d{1,6}")
_BOOLEAN: Final = re.compile(rb"true|false")
_WORD: Final = re.compile(rb"[\w,-]+")
# Of ptxas and cudafe++: what neither reads nor writes a file.
_PTXAS: Final = re.compile(
    rb"-v|--verbose|-O[0-4]|--opt-level=[0-4]|-d[ls]cm=\w+|--def-(?:load|store)-cache=\w+"
    rb"|--?warn-[a-z-]+|-w|--disable-warnings|-Werror|--?suppress-[a-z-]+|--?maxrregcount=\d+"
    rb"|--?allow-expensive-optimizations=(?:true|false)|--?fmad=(?:true|false)"
)
_CUDAFE: Final = re.compile(
    rb"--diag_(?:suppress|warning|error|remark|default)=\w+|--display_error_number"
    rb"|--no_display_error_number|--promote_warnings|--no_warnings"
)


@dataclass(frozen=True, slots=True)
class _Option:
    spec: FlagSpec
    value: re.Pattern[bytes] | None  # None: it takes none
    is_list: bool = False  # nvcc divides the value at commas


def _rows() -> Iterator[tuple[tuple[str, ...], _Option]]:
    def row(
        effect: Effect, value: re.Pattern[bytes] | None, *names: str, is_list: bool = False
    ) -> tuple[tuple[str, ...], _Option]:
        arity = Arity.ALONE if value is None else Arity.SEPARATE
        return names, _Option(FlagSpec(names[0], arity, effect, source=_SOURCE), value, is_list)

    for names in (
        ("-c", "--compile"), ("-dc", "--device-c"), ("-ptx", "--ptx"), ("-cubin", "--cubin"),
        ("-fatbin", "--fatbin"),
    ):  # fmt: skip
        yield row(Effect.MODE, None, *names)
    yield row(Effect.OUTPUT, _PATH, "-o", "--output-file")
    yield row(Effect.LANGUAGE, re.compile(rb"cu"), "-x", "--x")
    yield row(Effect.INCLUDE_DIR, SAFE, "-I", "--include-path", is_list=True)
    yield row(Effect.INCLUDE_DIR, SAFE, "-isystem", "--system-include", is_list=True)
    yield row(Effect.FORCED_INCLUDE, SAFE, "-include", "--pre-include", is_list=True)
    yield row(Effect.PREPROCESS, _MACRO, "-D", "--define-macro")
    yield row(Effect.PREPROCESS, SAFE, "-U", "--undefine-macro", is_list=True)
    yield row(Effect.PREPROCESS, re.compile(rb"c\+\+\d\d"), "-std", "--std")
    # A bare name is looked for in PATH, and a relative one from where nvcc runs.
    yield row(Effect.SEARCH, re.compile(rb"/[\w@%+:./-]*|[\w+.-]+"), "-ccbin", "--compiler-bindir")
    yield row(Effect.SEARCH, None, *_FORWARD)
    yield row(Effect.DEPENDENCY, None, "-MD", "--generate-dependencies-with-compile")
    yield row(Effect.DEPENDENCY, None, "-MP", "--generate-dependency-targets")
    yield row(Effect.DEPENDENCY, _PATH, "-MF", "--dependency-output")
    yield row(Effect.DEPENDENCY, SAFE, "-MT", "--dependency-target-name")
    yield row(Effect.LIST, SAFE, "-Xcompiler", "--compiler-options", is_list=True)
    yield row(Effect.LIST, SAFE, "-Xptxas", "--ptxas-options", is_list=True)
    yield row(Effect.LIST, SAFE, "-Xcudafe", "--cudafe-options", is_list=True)
    yield row(Effect.INPUT, SAFE, *_RESPONSES)
    for value, *valued in _VALUED:
        yield row(Effect.CODEGEN, value, *valued)
    for switches in _SWITCHES:
        yield row(Effect.CODEGEN, None, *switches)


_RESPONSES: Final = ("-optf", "--options-file")
_FORWARD: Final = ("-forward-unknown-to-host-compiler", "--forward-unknown-to-host-compiler")
_VALUED: Final[tuple[tuple[re.Pattern[bytes], str, *tuple[str, ...]], ...]] = (
    (_ARCHITECTURES, "-arch", "--gpu-architecture"),
    (_ARCHITECTURES, "-code", "--gpu-code"),
    (_ARCHITECTURES, "-gencode", "--generate-code"),
    (_BOOLEAN, "-rdc", "--relocatable-device-code"),
    (re.compile(rb"[0-3]"), "-O", "--optimize"),
    (re.compile(rb"0|min|mid|max"), "-Ofc", "--Ofast-compile"),
    (re.compile(rb"on"), "-dopt", "--dopt"),
    (_NUMBER, "-ftemplate-backtrace-limit", "--ftemplate-backtrace-limit"),
    (_NUMBER, "-ftemplate-depth", "--ftemplate-depth"),
    (re.compile(rb"64"), "-m", "--machine"),
    (re.compile(rb"none|shared|static"), "-cudart", "--cudart"),
    (re.compile(rb"none|static"), "-cudadevrt", "--cudadevrt"),
    (_NUMBER, "-t", "--threads"),
    (_NUMBER, "-split-compile", "--split-compile"),
    (_NUMBER, "-maxrregcount", "--maxrregcount"),
    (_BOOLEAN, "-ftz", "--ftz"),
    (_BOOLEAN, "-prec-div", "--prec-div"),
    (_BOOLEAN, "-prec-sqrt", "--prec-sqrt"),
    (_BOOLEAN, "-fmad", "--fmad"),
    (_BOOLEAN, "-static-global-template-stub", "--static-global-template-stub"),
    (_BOOLEAN, "-device-entity-has-hidden-visibility", "--device-entity-has-hidden-visibility"),
    (_BOOLEAN, "-brief-diag", "--brief-diagnostics"),
    (_BOOLEAN, "-device-stack-protector", "--device-stack-protector"),
    (re.compile(rb"legacy|null|per-thread"), "-default-stream", "--default-stream"),
    (_WORD, "-Werror", "--Werror"),
    (_WORD, "-diag-error", "--diag-error"),
    (_WORD, "-diag-suppress", "--diag-suppress"),
    (_WORD, "-diag-warn", "--diag-warn"),
    (_NUMBER, "-jtd", "--jump-table-density"),
    (re.compile(rb"default|size|speed|balance|none"), "-compress-mode", "--compress-mode"),
    (_WORD, "-frandom-seed", "--frandom-seed"),
)
_SWITCHES: Final = (
    ("-g", "--debug"), ("-G", "--device-debug"), ("-lineinfo", "--generate-line-info"),
    ("-pg", "--profile"), ("-dlto", "--dlink-time-opt"), ("-lto", "--lto"),
    ("-noeh", "--no-exceptions"), ("-nohdinitlist", "--no-host-device-initializer-list"),
    ("-nohdmoveforward", "--no-host-device-move-forward"),
    ("-expt-relaxed-constexpr", "--expt-relaxed-constexpr"),
    ("-extended-lambda", "--extended-lambda"), ("-expt-extended-lambda", "--expt-extended-lambda"),
    ("-m64", "--m64"), ("-allow-unsupported-compiler", "--allow-unsupported-compiler"),
    ("-use_fast_math", "--use_fast_math"),
    ("-extra-device-vectorization", "--extra-device-vectorization"),
    ("-w", "--disable-warnings"), ("-keep-device-functions", "--keep-device-functions"),
    ("-src-in-ptx", "--source-in-ptx"), ("-restrict", "--restrict"),
    ("-Wreorder", "--Wreorder"), ("-Wdefault-stream-launch", "--Wdefault-stream-launch"),
    ("-Wmissing-launch-bounds", "--Wmissing-launch-bounds"),
    ("-Wext-lambda-captures-this", "--Wext-lambda-captures-this"),
    ("-Wno-deprecated-declarations", "--Wno-deprecated-declarations"),
    ("-Wno-deprecated-gpu-targets", "--Wno-deprecated-gpu-targets"),
    ("-res-usage", "--resource-usage"), ("-ewp", "--extensible-whole-program"),
    ("-no-compress", "--no-compress"), ("-err-no", "--display-error-number"),
    ("-no-err-no", "--no-display-error-number"), ("-reloc-ptx", "--relocatable-ptx"),
)  # fmt: skip

# Options of nvcc that have no row. Forwarding takes none of them for a flag of GCC.
_REFUSED: Final = frozenset(
    b"-cuda -optix-ir -ltoir -E -M -MM -MMD -dw -dlink -link -lib -run -objtemp -l -L -odir -arbin"
    b" -ldir -target-dir -use-local-env -force-cl-env-setup -opt-info -gen-opt-lto -shared"
    b" -Xlinker -Xarchive -Xnvlink -Xcicc -Xfatbin -forward-unknown-to-host-linker"
    b" -forward-unknown-opts -noprof -dryrun -v -split-compile-extended -fdevice-syntax-only"
    b" -fdevice-time-trace -keep -keep-dir -save-temps -clean -time -run-args -idp -ddp -dp"
    b" -nodlink -e -qpp-config -astoolspatch -code-ls -arch-ls -hls -aug-hls -r -sanitize"
    b" -jobserver -h -V".split()
)

_OPTIONS: Final = {name.encode(): option for names, option in _rows() for name in names}
_JOINED: Final = frozenset({b"-I", b"-D", b"-U", b"-O"})
RESPONSES: Final = frozenset(name.encode() for name in _RESPONSES)
"""The options that name response files."""

# What nvcc may pass on to GCC. `-m` may change GCC's own search path, and is asked with it.
_TO_HOST: Final = frozenset({Effect.CODEGEN, Effect.SEARCH, Effect.COLOUR})
_HOST_SHAPE: Final = re.compile(rb"-[fgmOW][\w+.=-]+|-[gw]|-pthread|-pedantic(?:-errors)?|-pipe")
# They change how GCC reads a source, record the command line, or make more than code of it.
_HOST_REFUSED: Final = re.compile(
    rb"-f(?:no-)?(?:lto|fat-lto|profile|directives-only|preprocessed|pch|asm-blocks|ms-|dump|plugin"
    rb"|wide-exec|exec-charset|use-linker|report|mem-report|time-report|verbose-asm|debug-cpp"
    rb"|canonical-system|working-directory|instrument|branch-prob|auto-profile|test-cov|syntax-only)"
    rb".*|-[fg](?:no-)?record-.*|-m(?:arch|cpu|tune)=native.*|-gsplit-dwarf.*|-mmcu=.*|-W[alp],.*"
    rb"|-g(?:no-)?(?:as-)?loc.*|-gtoggle|-m(?:no-)?android.*"
)


def parse_options(
    arguments: Sequence[bytes],
) -> tuple[tuple[Flag | Operand, ...], tuple[Flag, ...]] | Bypass:
    """Return the words as parts, and the flags for the host compiler among them. Pure.

    A word that stands for several flags is in `raw` of the first.
    """
    parts: list[Flag | Operand] = []
    host: list[Flag] = []
    does_forward = not _OPTIONS.keys().isdisjoint(arguments) and any(
        name.encode() in arguments for name in _FORWARD
    )
    rest = iter(arguments)
    if any(map(_PROCESS.search, arguments)):
        return Bypass(BypassReason.PROCESS_PATH)
    for argument in rest:
        if not argument.startswith(b"-"):
            if not SAFE.fullmatch(argument) or argument.startswith(b"@"):
                return Bypass(BypassReason.NVCC_OPTION)
            parts.append(Operand(argument))
            continue
        found = _find(argument)
        if found is None:
            flag = _host_flag(argument) if does_forward and _is_unknown(argument) else None
            if flag is None:
                return Bypass(BypassReason.NVCC_OPTION)
            host.append(flag)
            parts.append(Flag(_spec_of(flag), b"", (argument,)))
            continue
        option, value = found
        raw: tuple[bytes, ...] = (argument,)
        if option.value is not None and value is None:
            value = next(rest, None)
            if value is None:
                return Bypass(BypassReason.MISSING_VALUE)
            raw = (argument, value)
        flags = _flags(option, value or b"", raw, host)
        if not flags:
            return Bypass(BypassReason.NVCC_OPTION)
        parts += flags
    return tuple(parts), tuple(host)


def is_response(part: Flag | Operand) -> bool:
    """Return whether a part names a response file, whose words follow it."""
    return isinstance(part, Flag) and part.spec.spelling == _RESPONSES[0]


def _find(argument: bytes) -> tuple[_Option, bytes | None] | None:
    """Return the row of a word, and the value that is in the word."""
    option = _OPTIONS.get(argument)
    if option is not None:
        return option, None
    name, equals, value = argument.partition(b"=")
    option = _OPTIONS.get(name)
    if equals and option is not None:
        return (option, value) if option.value is not None else None
    if name in _REFUSED or argument[:2] not in _JOINED:
        return None
    return _OPTIONS[argument[:2]], argument[2:].removeprefix(b"=")


def _is_unknown(argument: bytes) -> bool:
    """Return whether nvcc has no option of this name."""
    name = argument.partition(b"=")[0]
    return not argument.startswith(b"--") and name not in _OPTIONS and name not in _REFUSED


def _flags(
    option: _Option, value: bytes, raw: tuple[bytes, ...], host: list[Flag]
) -> list[Flag] | None:
    """Return the flags that a word stands for; None if its value is not taken."""
    if option.value is None:
        return [Flag(option.spec, b"", raw)]
    if not option.value.fullmatch(value) or value.startswith(b"="):
        return None
    pieces = value.split(b",") if option.is_list else [value]
    # `-I -` is another option of GCC.
    has_option = any(piece.startswith(b"-") for piece in pieces)
    if not all(pieces) or (has_option and option.spec.effect is not Effect.LIST):
        return None
    if option.spec.spelling == "-D":
        # Whether nvcc divides it depends on quotes. All that it may define counts.
        parts = value.split(b",") if b"," in value else []
        return [Flag(option.spec, value, raw), *(Flag(option.spec, p, ()) for p in parts)]
    if option.spec.effect is Effect.LIST:
        return _passed(option, pieces, raw, host)
    return [Flag(option.spec, piece, raw if at == 0 else ()) for at, piece in enumerate(pieces)]


def _passed(
    option: _Option, pieces: list[bytes], raw: tuple[bytes, ...], host: list[Flag]
) -> list[Flag] | None:
    """Return one flag for words that nvcc passes to another program; None if one is not taken."""
    if option.spec.spelling != "-Xcompiler":
        known = _PTXAS if option.spec.spelling == "-Xptxas" else _CUDAFE
        return [Flag(option.spec, b"", raw)] if all(map(known.fullmatch, pieces)) else None
    flags = [_host_flag(piece) for piece in pieces]
    known_flags = [flag for flag in flags if flag is not None]
    if len(known_flags) < len(flags):
        return None
    host += known_flags
    is_search = any(flag.spec.effect is Effect.SEARCH for flag in known_flags)
    return [Flag(_SEARCHED if is_search else option.spec, b"", raw)]


def _host_flag(word: bytes) -> Flag | None:
    """Return what GCC makes of a word; None if it may do more than change code and warnings."""
    if not _HOST_SHAPE.fullmatch(word) or _HOST_REFUSED.fullmatch(word):
        return None
    spec = GNU_FLAGS.find(word)
    if spec is None or spec.arity not in {Arity.ALONE, Arity.JOINED}:
        return None
    is_taken = spec.effect in _TO_HOST or word == b"-pthread"
    return Flag(spec, word[len(spec.spelling) :], (word,)) if is_taken else None


def _spec_of(flag: Flag) -> FlagSpec:
    return _SEARCHED if flag.spec.effect is Effect.SEARCH else _FORWARDED


_FORWARDED: Final = FlagSpec("forwarded", Arity.ALONE, Effect.CODEGEN, source=_SOURCE)
_SEARCHED: Final = FlagSpec("forwarded -m", Arity.ALONE, Effect.SEARCH, source=_SOURCE)
