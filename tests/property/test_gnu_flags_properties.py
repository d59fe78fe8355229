from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.depfile import DepRule, escape_name, parse_depfile, render_depfile
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.scan.scan import scan_source
from hpcc.compilers.spec.response import expand_responses, split_response
from hpcc.compilers.spec.table import Arity, Bypass, Effect, Flag, FlagSpec, Operand
from hpcc.core import CallerError

_VALUES = st.binary(min_size=1, max_size=20).filter(lambda v: b"\0" not in v)
_WORDS = st.sampled_from(
    [r.spelling.encode() for r in GNU_FLAGS.rows]
    + [
        b"a.c",
        b"b.o",
        b"-",
        b"-c",
        b"-o",
        b"x.o",
        b"-MD",
        b"-MF",
        b"d",
        b"@f",
        b"-x",
        b"c",
        b"",
        b"--",
    ]
)


def _rereads_as(row: FlagSpec, argument: bytes) -> bool:
    """Return whether the argument finds this row. A value may select a longer one (`-fplugin=x`)."""
    found = GNU_FLAGS.find(argument)
    return found is row


@given(st.sampled_from(GNU_FLAGS.rows), _VALUES)
def test_every_row_reads_back_each_way_it_is_spelled(row: FlagSpec, value: bytes) -> None:
    for argv, expected in row.spellings(value):
        if not _rereads_as(row, argv[0]):
            assert row.arity in {Arity.JOINED, Arity.EITHER}
            continue
        assert GNU_FLAGS.parse(argv) == (Flag(row, expected, argv),)


def test_every_row_can_be_reached_by_some_spelling() -> None:
    for row in GNU_FLAGS.rows:
        assert any(_rereads_as(row, argv[0]) for argv, _ in row.spellings(b"~")), row


@given(st.sampled_from([r for r in GNU_FLAGS.rows if r.arity is not Arity.ALONE]))
def test_a_flag_without_its_value_is_a_bypass(row: FlagSpec) -> None:
    if row.arity is not Arity.JOINED:
        assert GNU_FLAGS.parse([row.spelling.encode()]) == Bypass("missing-value")


def test_rows_have_a_source_and_refusals_a_reason() -> None:
    for row in GNU_FLAGS.rows:
        assert row.source
        assert row.reason or row.effect is not Effect.REFUSE, row


@given(st.lists(_WORDS | _VALUES, max_size=12))
def test_any_argv_is_an_invocation_or_a_bypass_and_loses_nothing(argv: list[bytes]) -> None:
    found = read_invocation(b"/usr/bin/gcc", argv)
    if isinstance(found, Invocation):
        assert list(found.arguments) == argv
        assert sum(isinstance(p, Operand) for p in found.parts) == 1
    else:
        assert found.reason


@given(st.binary(max_size=400))
def test_any_response_file_is_split_in_bounds(text: bytes) -> None:
    words = split_response(text)
    assert sum(map(len, words)) <= len(text)
    expand_responses([b"@x"], lambda _name: text)


@given(st.lists(st.text(alphabet=" \t\\'\"ab\n@", min_size=1, max_size=8), max_size=5))
def test_quoted_arguments_come_back(words: list[str]) -> None:
    raw = [w.encode() for w in words]
    text = b" ".join(b'"' + w.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' for w in raw)
    assert split_response(text) == raw


_NAMES = st.text(alphabet="ab/.$# \\", min_size=1, max_size=12).filter(
    lambda n: not n.endswith((" ", "\\")) and n.strip() and "\\#" not in n
)


@given(st.lists(_NAMES, min_size=1, max_size=12))
def test_rendered_dependencies_read_back(names: list[str]) -> None:
    rule = DepRule((b"out.o",), tuple(n.encode() for n in names))
    assert parse_depfile(render_depfile([rule])) == (rule,)


@given(st.binary(max_size=300))
def test_any_depfile_is_rules_or_one_error(data: bytes) -> None:
    try:
        parse_depfile(data)
    except CallerError as error:
        assert error.reason == "depfile"


@given(st.binary(max_size=500))
def test_any_source_can_be_scanned(data: bytes) -> None:
    scan_source(data)


@given(_NAMES)
def test_escaped_names_hold_no_bare_blank(name: str) -> None:
    assert escape_name(b"ab") == b"ab"
    assert b" " not in escape_name(name.encode()).replace(b"\\ ", b"")
