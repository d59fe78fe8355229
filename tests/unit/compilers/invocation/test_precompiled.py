"""What the words behind `-Xclang` say about precompiled headers."""

from __future__ import annotations

import pytest

from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.invocation.invocation import Invocation, Language
from hpcc.compilers.invocation.precompiled import InnerWords, inner_words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", InnerWords()),
        ("-include a -include-pch b", InnerWords((b"a",), (b"b",))),
        ("-emit-pch -include -emit-pch", InnerWords((b"-emit-pch",), (), makes_one=True)),
        ("-include -fno-pch-timestamp", InnerWords((b"-fno-pch-timestamp",))),
        ("-fno-pch-timestamp -include", InnerWords((), (), has_no_times=True)),
    ],
)
def test_words(words: str, expected: InnerWords) -> None:
    assert inner_words(words.encode().split()) == expected


@pytest.mark.parametrize(
    ("argv", "concerns"),
    [
        ("-c a.h", True),
        ("-c a.c", False),
        ("-c a.c -Xclang -fno-pch-timestamp", False),
        ("-c a.c -include b.h", False),
        ("-c a.c -Xclang -include -Xclang b.h", True),
        ("-c a.c -Xclang -include-pch -Xclang b.pch", True),
    ],
)
def test_which_commands_concern_one(argv: str, concerns: bool) -> None:
    found = GNU.read(b"clang", tuple(argv.encode().split()))
    assert isinstance(found, Invocation)
    assert found.concerns_precompiled is concerns


def test_questions_are_asked_in_the_language_of_the_header() -> None:
    assert Language.C_HEADER.asked == b"c"
    assert Language.CXX_HEADER.asked == b"c++"
