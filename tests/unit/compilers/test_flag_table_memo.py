"""The table remembers which row an argument belongs to; the answers stay those of the rows."""

from __future__ import annotations

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.spec.table import Arity, Effect, FlagSpec, FlagTable


def test_an_argument_has_the_same_row_each_time() -> None:
    for argument in (b"-Idir", b"-DNAME=1", b"-O2", b"-std=c17", b"-I"):
        first = GNU_FLAGS.find(argument)
        assert first is not None
        assert GNU_FLAGS.find(argument) is first


def test_more_arguments_than_it_remembers_are_still_found() -> None:
    table = FlagTable([FlagSpec("-D", Arity.JOINED, Effect.PREPROCESS, source="test")])
    for number in range(10_000):
        assert table.find(b"-D%d" % number) is table.rows[0]
    assert table.find(b"-D" + bytes(10_000)) is table.rows[0]
    assert table.find(b"-E") is None
