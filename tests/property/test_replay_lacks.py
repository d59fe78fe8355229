"""Reading a whole directory gives the same answers as a look-up of each name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Set
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpcc.cache.replay.engine import Check, CheckKind, Outcome, Plan
from hpcc.cache.replay.native import load_native
from hpcc.cache.replay.plan_bytes import _hash
from hpcc.cache.replay.python_engine import PythonEngine
from hpcc_testkit.suite.examples import examples

# Few letters, so that names are alike, or the same but for case; ends are where words end.
NAMES = st.one_of(
    st.text("aA.h", min_size=1, max_size=5),
    st.from_regex(r"[a-cA-C_]{1,9}\.h(\.gch)?", fullmatch=True),
    st.text(st.characters(min_codepoint=1, max_codepoint=127, exclude_characters="/"), min_size=1),
).filter(lambda name: name not in {".", ".."} and len(name) < 256)
ENTRIES = st.one_of(NAMES, st.sampled_from(["ü.h", "\u017f.h", "\u212a"]))
ENGINES = (load_native(), PythonEngine())


@settings(max_examples=examples(300))
@given(st.sets(NAMES, min_size=9, max_size=60), st.sets(ENTRIES, max_size=12), st.booleans())
@example({f"{i}" for i in range(9)}, {"8"}, False)
def test_names_and_entries(names: Set[str], entries: Set[str], is_mixed: bool) -> None:
    entries = set(entries) if is_mixed else {e for e in entries if e not in names}
    encoded = tuple(sorted(map(os.fsencode, names)))
    with tempfile.TemporaryDirectory() as directory:
        for entry in entries:
            Path(directory, entry).touch()
        check = Check(CheckKind.LACKS, os.fsencode(directory), (), encoded)
        plan = Plan((check,), (), 0o644, (0, 0), b"")
        expected = Outcome.DONE if names.isdisjoint(entries) else Outcome.CHANGED
        for engine in ENGINES:
            assert engine.replay(engine.prepare(plan), -1) == expected, engine.name


@settings(max_examples=examples(30))
@given(st.integers(0, 10_000), st.integers(9, 400))
def test_names_that_follow_one_another_are_spread(first: int, count: int) -> None:
    """If all names were neighbours in the table, each look-up would search all of it.

    Of 23,520 pairs of these numbers, the least had 0.48 of the count, and nearly all more than half.
    """
    slots = 2 * count
    taken = {_hash(b"h%d.h.gch" % (first + i)) * slots >> 32 for i in range(count)}
    assert len(taken) > count / 3
