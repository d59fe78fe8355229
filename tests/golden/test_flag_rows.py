"""Freezes every row of the flag tables. A removed or changed row changes what hpcc does.

If a change is intended, rewrite the file and read the difference:

    python tests/golden/test_flag_rows.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.msvc.flags import MSVC_FLAGS
from hpcc.compilers.spec.table import FlagSpec

GOLDEN: Final = Path(__file__).with_name("flag_rows.json")


def described(rows: Iterable[FlagSpec]) -> dict[str, str]:
    """Describe rows by their spelling; the joined row of a flag ends in `…`."""
    found = {}
    for row in rows:
        name = row.spelling + ("…" if row.arity.name == "JOINED" else "")
        assert name not in found
        found[name] = " ".join(
            (
                row.arity.name, row.effect.name, row.reason or "-",
                f"gcc {row.gcc.start}-{row.gcc.stop - 1}",
                f"clang {row.clang.start}-{row.clang.stop - 1}",
                "stable" if row.is_stable else "-",
            )
        )  # fmt: skip
    return dict(sorted(found.items()))


def tables() -> dict[str, dict[str, str]]:
    return {"gnu": described(GNU_FLAGS.rows), "msvc": described(MSVC_FLAGS.rows)}


def test_no_row_was_dropped_or_changed_by_accident() -> None:
    assert tables() == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(tables(), indent=1, ensure_ascii=False) + "\n")
