"""Reads the command line of an nvcc into an `Invocation`, or a bypass with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from hpcc.compilers.invocation.invocation import DepMode, Invocation, Language, Product
from hpcc.compilers.nvcc.options import RESPONSES, is_response, parse_options
from hpcc.compilers.spec.response import (
    MAX_EXPANDED_ARGUMENTS,
    MAX_RESPONSE_BYTES,
    ReadFile,
)
from hpcc.compilers.spec.table import Bypass, Effect, Flag, Operand
from hpcc.core.reasons.bypass import BypassReason

PREPEND, APPEND, HOST = b"NVCC_PREPEND_FLAGS", b"NVCC_APPEND_FLAGS", b"NVCC_CCBIN"
FIRST_HEADER: Final = b"cuda_runtime.h"
"""What nvcc includes in front of each source."""
SECOND_HEADERS: Final = (b"crt/host_runtime.h", b"fatbinary_section.h")
"""What the code that nvcc generates includes. The host compiler reads it in a second run, from the
directory of temporary files, with the user's search path. No depfile lists these headers."""
# White space and words that mean the same to every reader.
_PLAIN: Final = re.compile(rb"[\w@%+=:,./ \t\r\n-]*+")
# CMake quotes each directory. nvcc takes the quotes away, as a shell does.
_QUOTED: Final = re.compile(rb'(?<!\S)(-I|-isystem=)?"([\w@%+:,./-]++)"(?!\S)')
_ONE_LINE: Final = re.compile(rb"[\w@%+=:,./ \t-]*+")
_SEPARATE: Final = frozenset({b"-I", b"-isystem", b"-D", b"-U"})
_IN_RESPONSE: Final = re.compile(rb"-[IDU]|-isystem(?:=|$)")
_SUFFIXES: Final = (b".cu", b".cpp", b".cc", b".cxx", b".c")
_SUFFIX_OF: Final = {
    "-c": b".o",
    "-dc": b".o",
    "-ptx": b".ptx",
    "-cubin": b".cubin",
    "-fatbin": b".fatbin",
}
_OBJECTS: Final = frozenset({"-c", "-dc"})


@dataclass(frozen=True, kw_only=True)
class NvccInvocation(Invocation):
    """One compile by nvcc. `host` are the flags that it passes to the host compiler."""

    host: tuple[Flag, ...]

    @cached_property
    def arguments(self) -> tuple[bytes, ...]:
        """The words without the names of response files, whose words are among them."""
        return tuple(word for part in self.parts if not is_response(part) for word in _raw(part))

    @property
    def key_arguments(self) -> tuple[bytes, ...]:
        return tuple(word for part in self.parts for word in _raw(part))

    @cached_property
    def forced_includes(self) -> tuple[bytes, ...]:
        return (FIRST_HEADER, *SECOND_HEADERS, *self.values("-include"))

    @cached_property
    def makes_object(self) -> bool:
        """Return whether the host compiler makes the output, and not a program of the toolkit."""
        return any(f.spec.effect is Effect.MODE and f.spec.spelling in _OBJECTS for f in self.flags)


def _raw(part: Flag | Operand) -> tuple[bytes, ...]:
    return (part.name,) if isinstance(part, Operand) else part.raw


def expand_nvcc(
    arguments: tuple[bytes, ...], env: Mapping[bytes, bytes], read_file: ReadFile
) -> tuple[bytes, ...] | Bypass:
    """Return the arguments with those of the environment and of response files inserted.

    A file is named by an option, and never by `@`. Double quotes around a plain directory count for
    nothing. Other quotes, and backslashes, have a meaning that was not asked, so a text with one is
    refused.
    """
    before, behind = env.get(PREPEND, b""), env.get(APPEND, b"")
    if not all(map(_ONE_LINE.fullmatch, (before, behind))):
        return Bypass(BypassReason.NVCC_OPTION)
    if not before.strip() and not behind.strip() and not _names_response(arguments):
        return arguments
    result: list[bytes] = []
    for words, is_text in (
        (before.split(), True),
        (arguments, False),
        (behind.split(), True),
    ):
        if is_text and _names_response(words):
            return Bypass(BypassReason.NVCC_OPTION)
        rest = iter(words)
        for word in rest:
            name, equals, value = word.partition(b"=")
            if name not in RESPONSES:
                result.append(word)
                continue
            file = value if equals else next(rest, b"")
            content = read_file(file)
            found = None if content is None else _words(content)
            if found is None:
                return Bypass(BypassReason.RESPONSE_FILE)
            # The option stays in front of them: the word before it may take it as its value.
            result += [name, file, *found]
    return tuple(result) if len(result) <= MAX_EXPANDED_ARGUMENTS else _TOO_MANY


_TOO_MANY: Final = Bypass(BypassReason.RESPONSE_FILE)


def _names_response(words: Sequence[bytes]) -> bool:
    return any(word.partition(b"=")[0] in RESPONSES for word in words)


def _words(content: bytes) -> list[bytes] | None:
    """Return the words of a response file; None if one of them may mean something else."""
    if len(content) > MAX_RESPONSE_BYTES:
        return None
    content = _QUOTED.sub(rb"\1\2", content)
    if not _PLAIN.fullmatch(content):
        return None
    words = content.split()
    is_value = False
    for word in words:
        # nvcc may insert the words at another place. For these, no check here depends on that.
        if is_value == word.startswith(b"-") or not (is_value or _IN_RESPONSE.match(word)):
            return None
        is_value = not is_value and word in _SEPARATE
    return None if is_value else words


def read_nvcc(arguments: Sequence[bytes]) -> NvccInvocation | Bypass:
    """Return what expanded arguments mean, or why the command is not cached. Pure."""
    parsed = parse_options(arguments)
    if isinstance(parsed, Bypass):
        return parsed
    parts, host = parsed
    flags = [part for part in parts if isinstance(part, Flag)]
    modes = {f.spec.spelling for f in flags if f.spec.effect is Effect.MODE}
    if len(modes) != 1:
        return Bypass(BypassReason.NVCC)
    source = _source(parts, flags)
    if isinstance(source, Bypass):
        return source
    outputs = [f.value for f in flags if f.spec.effect is Effect.OUTPUT]
    if len(outputs) > 1:
        return Bypass(BypassReason.MULTIPLE_OUTPUTS)
    stem = source.rpartition(b"/")[2].rpartition(b".")[0]
    output = outputs[0] if outputs else stem + _SUFFIX_OF[modes.pop()]
    if output.endswith(b"/") or output in {b"-", source}:
        return Bypass(BypassReason.ODD_OUTPUT)
    depfile = _depfile(flags)
    if isinstance(depfile, Bypass):
        return depfile
    if depfile in {output, source}:
        return Bypass(BypassReason.ODD_OUTPUT)
    return NvccInvocation(
        language=Language.CXX,
        source=source,
        output=output,
        dep_mode=DepMode.NONE if depfile is None else DepMode.ALL,
        depfile=depfile,
        deps_by_wp=False,
        parts=parts,
        is_native=False,
        product=Product.CUDA,
        host=host,
    )


def _source(parts: Sequence[Flag | Operand], flags: Sequence[Flag]) -> bytes | Bypass:
    sources = [part.name for part in parts if isinstance(part, Operand)]
    if len(sources) != 1:
        return Bypass(BypassReason.NVCC)
    source = sources[0]
    is_cuda = any(f.spec.effect is Effect.LANGUAGE for f in flags)
    suffixes = _SUFFIXES if is_cuda else _SUFFIXES[:1]
    if not source.endswith(suffixes) or source.rpartition(b"/")[2] in suffixes:
        return Bypass(BypassReason.NVCC)
    return source


def _depfile(flags: Sequence[Flag]) -> bytes | Bypass | None:
    """Return the depfile's name; None if there is none."""
    found = [f for f in flags if f.spec.effect is Effect.DEPENDENCY]
    files = list(_values(found, "-MF"))
    if not found:
        return None
    # Without -MF, nvcc makes the name from other names. Without -MD it writes none.
    if len(files) != 1 or not any(f.spec.spelling == "-MD" for f in found):
        return Bypass(BypassReason.ODD_DEPENDENCIES)
    return Bypass(BypassReason.ODD_DEPENDENCIES) if files[0].endswith(b"/") else files[0]


def _values(flags: Sequence[Flag], spelling: str) -> Iterator[bytes]:
    return (f.value for f in flags if f.spec.spelling == spelling)
