"""Identifies a cl or clang-cl by its preprocessor: banners are translated, macros are not.

Sources: cpp-docs, "Predefined macros" (`_MSC_FULL_VER`: four digits, then the build) and
"/sourceDependencies" (since Visual Studio 2019 16.7, which is 19.27).
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.core import CallerError

VERSION_SOURCE: Final = b"""#ifdef __clang__
HPCC_PROBE clang __clang_major__ __clang_minor__ __clang_patchlevel__
#else
HPCC_PROBE cl _MSC_FULL_VER
#endif
"""
"""Preprocessed with `-EP`, it answers one line for `read_cl_version`."""

SOURCE_DEPENDENCIES_SINCE: Final = (19, 27)
_ANSWER: Final = re.compile(
    rb"^HPCC_PROBE (?:clang ([0-9]{1,4}) ([0-9]{1,4}) ([0-9]{1,6})"
    rb"|cl ([0-9]{2})([0-9]{2})([0-9]{1,6}))\s*$",
    re.MULTILINE,
)


def read_cl_version(output: bytes) -> tuple[bool, tuple[int, ...]]:
    """Return whether it is clang, and its version: 19.38.33130 for cl, 19.1.7 for clang-cl.

    Raises:
        CallerError: no such answer is in the output.
    """
    match = _ANSWER.search(output)
    if match is None:
        raise CallerError("the compiler does not say what it is", reason="unknown-compiler")
    numbers = tuple(int(part) for part in match.groups() if part is not None)
    return match[1] is not None, numbers
