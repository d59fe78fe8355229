"""Joins arguments into a Windows command line that programs parse back to the same arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hpcc.core import CallerError

# CreateProcess accepts 32,767 units including the final zero. The registry's limit is far above.
MAX_UNITS: Final = 32_766
_PLAIN: Final = re.compile(r"[^\s\"]+")
_CONTROL: Final = re.compile(r"[\0-\x1f]")
_BACKSLASHES: Final = re.compile(r"(\\*)(\"|\Z)")


def command_line(argv: Sequence[str]) -> str:
    r"""Return the arguments joined by the rules of CommandLineToArgvW. The program is quoted.

    Without quotes `C:\Program Files\x.exe` would start a `C:\Program.exe` that someone put there.

    Raises:
        CallerError: the program is not an absolute path, an argument has a control character, or
            the result is too long (reason `command-line`).
    """
    program, *rest = argv
    is_bad = '"' in program or not re.match(r"[A-Za-z]:\\", program)
    if is_bad or any(_CONTROL.search(word) for word in argv):
        raise CallerError(
            "a program's path begins with a drive, and no argument has a control character",
            reason="command-line",
        )
    line = " ".join([f'"{program}"', *map(_quoted, rest)])
    if len(line.encode("utf-16-le", "surrogatepass")) // 2 > MAX_UNITS:
        raise CallerError("the command line is longer than Windows allows", reason="command-line")
    return line


def _quoted(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    # Backslashes are doubled only before a quote, including the closing one that is added here.
    return '"' + _BACKSLASHES.sub(_doubled, word) + '"'


def _doubled(match: re.Match[str]) -> str:
    return match[1] * 2 + ('\\"' if match[2] else "")
