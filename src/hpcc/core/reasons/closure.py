"""Why the compiler had to list the inputs of a compile on a farm: `closure.asked.REASON`."""

from __future__ import annotations

from typing import Final

from hpcc.core.reasons.reason import Reason

_LINK: Final = "Put the header itself there, if the extra run matters."
_AGAIN: Final = "Nothing to do: the next compile is scanned again."
_LIMIT: Final = "Nothing to do: a limit of hpcc."


class ClosureReason(Reason, prefix="closure.asked"):
    """Why the sources' text does not determine which files a compile reads."""

    # fmt: off
    ABSOLUTE_INCLUDE = (
        "absolute-include", "a header is included by its whole path",
        "Include it by a relative name.", "The path is another one in a guest.")
    COMPUTED_INCLUDE = (
        "computed-include", "`#include` of what a macro with arguments makes",
        "Write the header's name literally.")
    DIRECTORY_LINK = "directory-link", "a link in place of a header", _LINK
    INPUT_VANISHED = "input-vanished", "a header is gone, or changes this instant", _AGAIN
    ODD_DIRECTORY = (
        "odd-directory", "a file in place of a directory", "Remove it from the search path.")
    OUTSIDE_ROOT = (
        "outside-root", "a name in some branch leads to a file outside the project",
        "Move the file into the project.")
    PCH = (
        "pch", "a precompiled header lies beside a header", "Remove the `.gch` or `.pch` file.")
    SPECIAL_INPUT = "special-input", "a device or pipe in place of a header", "Use ordinary files."
    SYMLINK_AND_DOTS = "symlink-and-dots", "a link before a `..`", _LINK
    TOO_MANY_FILES = "too-many-files", "more files than hpcc looks for", _LIMIT
    TOO_MANY_NAMES = "too-many-names", "more names than hpcc looks for", _LIMIT
    TOOLS = "tools", "`-B`, `-specs` and others", "Leave the option out, if the extra run matters."
    TRADITIONAL = "traditional", "`-traditional-cpp`", "Use the standard preprocessor."
    # fmt: on
