"""Which texts may turn on a warning of comments."""

from __future__ import annotations

import pytest

from hpcc.compilers.scan.raised_warnings import (
    COMMENTS,
    DOCUMENTATION,
    raised_warnings,
)

_PRAGMA = b"#pragma clang diagnostic "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"// documentation of everything extra, diagnostic\nint extra, v;\n", 0),
        (_PRAGMA + b'ignored "-Wdocumentation"\n', 0),
        (_PRAGMA + b'ignored "-Wextra-semi"\n' + _PRAGMA + b"pop\n", 0),
        (b'_Pragma("GCC diagnostic ignored \\"-Wimplicit-fallthrough\\"")\n', 0),
        (_PRAGMA + b'warning "-Wdocumentation-html"\n', DOCUMENTATION),
        (_PRAGMA + b'error "-Weverything"\n', DOCUMENTATION),
        (_PRAGMA + b'warning "-Wdocu\\\nmentation"\n', DOCUMENTATION),
        (b"TURN_ON(documentation)\n", DOCUMENTATION),
        (b'TURN_ON("documentation")\n', DOCUMENTATION),
        (b"TURN(clang, -Wdocumentation)\n", DOCUMENTATION),
        (b'#pragma GCC diagnostic warning "-Wimplicit-" "fallthrough"\n', COMMENTS),
        (b'#pragma GCC diagnostic warning "-" "Wextra"\n', COMMENTS),
        (b'#pragma GCC diagnostic warning "-Wimplicit-fallthrough=1"\n', COMMENTS),
        (b'#pragma GCC diagnostic warning "-Wextra"\n', 0),
        (b'_Pragma("GCC diagnostic error \\"-Wimplicit-fallthrough=3\\"")\n', 0),
        (b'#pragma GCC diagnostic warning "-Wc90-c99-compat"\n', COMMENTS),
    ],
)
def test_a_pragma_or_what_may_become_one_counts(text: bytes, expected: int) -> None:
    assert raised_warnings(text) == expected
