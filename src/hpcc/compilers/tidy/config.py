"""Reads what a configuration of clang-tidy may name besides checks and filters.

The text is not parsed: a key that may add flags to the compile, or that may name a file for the
static analyser to read, refuses the result wherever it stands. Keys can hide behind escapes of
YAML, so those are refused, too.

Sources: ClangTidyOptions.cpp, AnalyzerOptions.def and Checkers.td of LLVM 19, `--help` of 22.
"""

from __future__ import annotations

import re
from typing import Final

MAX_CONFIG_BYTES: Final = 1 << 20
# `ExtraArgs`, `ExtraArgsBefore`, and `RemovedArgs` of LLVM 22.
_FLAGS: Final = b"Args"
# In double quotes `\x41` is a letter, and a backslash at the end of a line joins two.
_ESCAPE: Final = re.compile(rb"\\(?:[xuU]|\r?\n)")
# `clang-analyzer-ctu-dir` and `model-path` are options of the analyser, and hold a dash, which no
# checker has. Those of a checker follow a colon: `…TaintPropagation:Config` names a file.
_ANALYSER: Final = re.compile(rb"clang-analyzer-([\w.*-]*)(?::([\w-]*))?")
_NAMES_FILE: Final = re.compile(rb"config|file|path|dir", re.IGNORECASE)


# The only check that writes `$USER` into a message (TodoCommentCheck.cpp); both its texts.
_SHOWS_USER: Final = re.compile(rb"readability-todo|missing username")


def shows_user(messages: bytes) -> bool:
    """Return whether a finding may show the name of the user, which comes from `$USER`."""
    return _SHOWS_USER.search(messages) is not None


def names_more(text: bytes) -> bool:
    """Return whether a configuration may make clang-tidy read further files or take flags."""
    if len(text) > MAX_CONFIG_BYTES or _FLAGS in text or _ESCAPE.search(text):
        return True
    return any(
        b"-" in match[1] or (match[2] is not None and _NAMES_FILE.search(match[2]) is not None)
        for match in _ANALYSER.finditer(text)
    )
