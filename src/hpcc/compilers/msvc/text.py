"""How Windows programs receive their arguments: quoting, response files, CL and _CL_.

Sources: Microsoft's "Parsing C command-line arguments" (the rules of the C runtime since 2008),
cpp-docs "CL environment variables" and "@ (Specify a compiler response file)"; LLVM's
TokenizeWindowsCommandLine agrees.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hpcc.compilers.spec.response import (
    MAX_EXPANDED_ARGUMENTS,
    MAX_EXPANDED_BYTES,
    MAX_RESPONSE_BYTES,
)
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

# Backslashes are special only before quotes. A run of quotes is one piece.
_PIECE: Final = re.compile(rb'(\\*)("+)|([ \t\r\n\0]+)|(\\+|[^\\" \t\r\n\0]+)')
_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")
_NEEDS_QUOTES: Final = frozenset(b' \t\n\v"')
# cl limits CL and _CL_ together to 1024 characters; clang-cl has no limit.
MAX_VARIABLE_BYTES: Final = 32 << 10
_MAX_NESTING: Final = 16


def split_windows(text: bytes) -> list[bytes]:
    r"""Split a command line (without the program's name) as the C runtime does.

    2n backslashes before a quote give n, and the quote is a delimiter. 2n+1 give n and a quote.
    Other backslashes are literal. Inside quotes, two quotes give one.
    """
    arguments: list[bytes] = []
    current: bytearray | None = None
    in_quotes = False
    for match in _PIECE.finditer(text):
        slashes, quotes, space, other = match.groups()
        if space is not None and not in_quotes:
            if current is not None:
                arguments.append(bytes(current))
            current = None
            continue
        current = bytearray() if current is None else current
        if quotes is None:
            current += space or other
            continue
        current += b"\\" * (len(slashes) // 2)
        if len(slashes) % 2:
            current += b'"'
            quotes = quotes[1:]
        in_quotes = _take_quotes(current, len(quotes), in_quotes=in_quotes)
    if current is not None:
        arguments.append(bytes(current))
    return arguments


def _take_quotes(current: bytearray, count: int, *, in_quotes: bool) -> bool:
    """Add what a run of quotes stands for; return whether the text continues inside quotes."""
    while count:
        if in_quotes and count > 1:
            current += b'"'
            count -= 2
        else:
            in_quotes = not in_quotes
            count -= 1
    return in_quotes


def join_windows(arguments: Iterable[bytes]) -> bytes:
    """Return a command line that `split_windows`, and every C runtime, parses to these arguments.

    For `CreateProcess`; not for `cmd.exe`, which hpcc never starts.
    """
    return b" ".join(map(_quoted, arguments))


def _quoted(argument: bytes) -> bytes:
    if argument and not _NEEDS_QUOTES & {*argument}:
        return argument
    out = bytearray(b'"')
    slashes = 0
    for char in argument:
        if char == _BACKSLASH:
            slashes += 1
            continue
        out += b"\\" * (slashes * 2 + 1 if char == _QUOTE else slashes)
        out.append(char)
        slashes = 0
    return bytes(out + b"\\" * (slashes * 2) + b'"')


def fold_variables(
    arguments: Sequence[bytes], *, before: bytes, behind: bytes
) -> tuple[bytes, ...] | Bypass:
    """Return the arguments with those of CL before and those of _CL_ after them.

    In both, `#` may replace `=` in a macro definition (`/DNAME#value`); clang-cl does the same.
    """
    if len(before) + len(behind) > MAX_VARIABLE_BYTES:
        return Bypass(BypassReason.ENVIRONMENT)
    if behind and b"--" in arguments:
        return Bypass(BypassReason.ENVIRONMENT)  # clang-cl then reads the content of _CL_ as files
    return (*_of_variable(before), *arguments, *_of_variable(behind))


def _of_variable(text: bytes) -> Iterable[bytes]:
    for argument in split_windows(text):
        is_macro = argument[:2] in {b"/D", b"-D"} and b"=" not in argument
        yield argument.replace(b"#", b"=", 1) if is_macro else argument


def expand_windows_responses(
    arguments: Sequence[bytes], read_file: Callable[[bytes], bytes | None], *, is_clang: bool
) -> tuple[bytes, ...] | Bypass:
    """Replace each `@file`. clang-cl expands nested ones, cl does not.

    clang-cl takes a file without a mark for UTF-8 (LLVM's CommandLine.cpp), cl for text of the
    code page. So of cl only ASCII is read, and UTF-16 with its mark, which MSBuild writes.
    """
    if not any(a.startswith(b"@") for a in arguments):
        return tuple(arguments)
    result: list[bytes] = []
    total = 0
    stack = [(a, 0) for a in reversed(arguments)]
    while stack:
        argument, depth = stack.pop()
        total += len(argument)
        if len(result) + len(stack) > MAX_EXPANDED_ARGUMENTS or total > MAX_EXPANDED_BYTES:
            return Bypass(BypassReason.RESPONSE_FILE)
        if not argument.startswith(b"@"):
            result.append(argument)
            continue
        content = read_file(argument[1:])
        text = None if content is None else _decoded(content, is_clang=is_clang)
        if text is None or depth >= (_MAX_NESTING if is_clang else 1):
            return Bypass(BypassReason.RESPONSE_FILE)
        stack.extend((a, depth + 1) for a in reversed(split_windows(text)))
    return tuple(result)


def _decoded(content: bytes, *, is_clang: bool) -> bytes | None:
    """Return a response file as UTF-8; None if the compiler may read another text in it."""
    if len(content) > MAX_RESPONSE_BYTES:
        return None
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = content.decode("utf-16").encode()
            is_sure = is_clang or content.startswith(codecs.BOM_UTF16_LE)
        else:
            text = content.removeprefix(codecs.BOM_UTF8)
            is_sure = is_clang or content.isascii()
    except UnicodeError:
        return None
    # An argument of cl must not span lines (cpp-docs).
    if not is_clang and any(b"\n" in argument for argument in split_windows(text)):
        return None
    return text if is_sure and b"\0" not in text else None
