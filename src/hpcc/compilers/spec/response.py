"""Response files, by the rules of libiberty's expandargv and LLVM's GNU tokenizer.

Both agree: white space separates, quotes of either kind group, a backslash makes the next character
literal (also inside quotes), and an `@file` that cannot be read stays unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

# A compile's response file holds include paths and macros. A longer one belongs to a link.
MAX_RESPONSE_BYTES: Final = 256 << 10
# The expanded arguments are passed to execve individually.
MAX_EXPANDED_ARGUMENTS: Final = 4096
MAX_EXPANDED_BYTES: Final = 512 << 10
MAX_NESTING: Final = 16

_SPACE: Final = frozenset(b" \t\n\v\f\r")
_QUOTES: Final = frozenset(b"\"'")
_BACKSLASH: Final = ord("\\")

ReadFile = Callable[[bytes], bytes | None]
"""Returns at most MAX_RESPONSE_BYTES + 1 bytes of a file, or None when it cannot be read."""


def split_response(text: bytes) -> list[bytes]:
    """Return the arguments in the content of a response file."""
    arguments: list[bytes] = []
    current = bytearray()
    in_argument = is_escaped = False
    quote = 0
    for char in text:
        if is_escaped:
            current.append(char)
            is_escaped = False
        elif char == _BACKSLASH:
            is_escaped = in_argument = True
        elif quote:
            if char == quote:
                quote = 0
            else:
                current.append(char)
        elif char in _QUOTES:
            quote, in_argument = char, True
        elif char not in _SPACE:
            current.append(char)
            in_argument = True
        elif in_argument:
            arguments.append(bytes(current))
            current.clear()
            in_argument = False
    if in_argument:
        arguments.append(bytes(current))
    return arguments


def expand_responses(arguments: Sequence[bytes], read_file: ReadFile) -> tuple[bytes, ...] | Bypass:
    """Return the arguments with each `@file` replaced by its content, also nested ones."""
    if not any(a.startswith(b"@") for a in arguments):
        return tuple(arguments)
    result: list[bytes] = []
    total = 0
    stack: list[tuple[bytes, int]] = [(a, 0) for a in reversed(arguments)]
    while stack:
        argument, depth = stack.pop()
        content = read_file(argument[1:]) if argument.startswith(b"@") else None
        if content is None:
            result.append(argument)
            total += len(argument)
        elif depth >= MAX_NESTING or len(content) > MAX_RESPONSE_BYTES or b"\0" in content:
            return Bypass(BypassReason.RESPONSE_FILE)
        else:
            stack.extend((a, depth + 1) for a in reversed(split_response(content)))
        if len(result) + len(stack) > MAX_EXPANDED_ARGUMENTS or total > MAX_EXPANDED_BYTES:
            return Bypass(BypassReason.RESPONSE_FILE)
    return tuple(result)
