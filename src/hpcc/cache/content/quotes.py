"""Tells whether messages quote their files as these are now.

A digest without comments stands for files with other comments. Every token is in its line and
column, so a compiler has the same messages for both. Only the lines that it quotes may differ, in a
comment. So each quoted line is compared with the file.

GCC since version 9 and Clang since version 17 number the lines that they quote. What is in another
form counts as a difference. Colours and links are left out: no file with a digest without comments
holds the character that begins them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import absolute

_LOCATION: Final = re.compile(rb"([^\s:][^:]*):\d+(?::\d+)?: [^\n]*")
_QUOTE: Final = re.compile(rb" *(\d{1,9}) \|(?: ([^\n]*))?")
# Marks below a quote, what a file is included from, a function, and the sum of Clang's messages.
_OTHER: Final = re.compile(
    rb" *\|(?: [^\n]*)?| *\+{3} \|\+[^\n]*"
    rb"|In file included from [^\n]*[:,]| +from [^\n]*[:,]"
    rb"|(?:[^\s:][^:]*: )?(?:In|At) [^\n]*[:,]| +inlined from [^\n]*[:,]"
    rb"|[^\s:]+: (?:warning|note): [^\n]*"
    rb"|\d+ warnings? generated\."
)
# A colour, the end of a line's colour, and a link.
_ESCAPE: Final = re.compile(rb"\x1b(?:\[[\d;]*[mK]|\]8;[^\x1b\x07]*(?:\x1b\\|\x07))")
_TAG: Final = b"line-for-quotes"
_MAX_LINES: Final = 2_000
_TAB: Final = 8


def hold_quotes(messages: bytes, cwd: bytes, files: Mapping[bytes, bytes], memo: FileMemo) -> bool:
    """Tell whether each line that a compiler quotes is that line of its file now.

    `files` are the inputs, absolute paths with their digests.
    """
    if b"\x1b" in messages:
        messages = _ESCAPE.sub(b"", messages)
    lines = messages.splitlines()
    if len(lines) > _MAX_LINES:
        return False
    file = b""
    for line in lines:
        if quote := _QUOTE.fullmatch(line):
            digest = files.get(file)
            if digest is None or not _is_there(memo, file, digest, int(quote[1]), quote[2] or b""):
                return False
        elif location := _LOCATION.fullmatch(line):
            file = absolute(cwd, location[1])
        elif _OTHER.fullmatch(line) is None:
            return False
    return True


def _is_there(memo: FileMemo, path: bytes, digest: bytes, number: int, quoted: bytes) -> bool:
    """Tell whether a file's line, counted from 1, is shown as this text."""

    def read(data: bytes) -> bytes:
        lines = data.split(b"\n", number)
        return lines[number - 1] if 0 < number <= len(lines) else b"\n"

    line = memo.derived(path, digest, (_TAG, number), read)
    if line is None:
        return False
    return line.expandtabs(_TAB).rstrip(b" ") == quoted.rstrip(b" ")
