"""Which include line of a source comes first."""

from __future__ import annotations

import pytest

from hpcc.compilers.scan.includes import may_begin_with_macro


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("", False),
        ("int a;\n", False),
        ("#include NAME\n", True),
        ("%: include /* x */ NAME(y)\n", True),
        ('#include "a.h"\n#include NAME\n', False),
        ("#  include_next <a.h>\n#include NAME\n", False),
        ("#if X\n#include <a.h>\n#endif\n#include NAME\n", True),
        ("#if X\n#endif\n#include <a.h>\n#include NAME\n", False),
        ("#ifdef X\n#ifndef Y\n#endif\n#include <a.h>\n#endif\n#include NAME\n", True),
        ("// \\\n#include <a.h>\n#include NAME\n", True),
        ("/*\n#include <a.h>\n*/\n#include NAME\n", True),
        ("#include <a.h>\n", False),
        ("#if X\n#include NAME\n#endif\n#include <a.h>\n", True),
        ("#include\\\n NAME\n", True),
    ],
)
def test_a_macro_for_the_name_of_the_first_header(text: str, may: bool) -> None:
    assert may_begin_with_macro(text.encode()) is may
