"""Which lines of a header are plain definitions, and the record of them."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.content.comments import _Former
from hpcc.cache.content.values import (
    decode_values,
    encode_values,
    values_of,
    without_definitions,
)
from hpcc.compilers.scan.comments import LexMode
from hpcc.core import IntegrityError

TEXT = b'#pragma once\n#define A_ONE 1\n  #  define A_TWO "x y"  \n#define A_F(x) 1\n#define A_N\n'


def test_plain_definitions_are_found_and_the_rest_is_compared() -> None:
    values = values_of(TEXT)
    assert values is not None
    assert values.names == (b"A_ONE", b"A_TWO")
    assert values.values == (b"1", b'"x y"')
    other = values_of(TEXT.replace(b"1\n ", b"0x7\n ", 1))
    assert other is not None
    assert values.changed(other) == {b"A_ONE"}
    assert values.changed(values) is None
    for old, new in (
        (b"A_F(x) 1", b"A_F(x) 2"),
        (b"#define A_ONE 1", b"  #define A_ONE 2"),
        (b"#define A_ONE 1", b"#define  A_ONE 2"),
        (b"#define A_ONE 1\n", b"#define A_ONE 2\n\n"),
        (b"#define A_ONE 1\n", b"#define A_ONE 2 \n"),
        (b"A_ONE 1", b"A_TWO 1"),
    ):
        more = values_of(TEXT.replace(old, new))
        assert more is None or values.changed(more) is None


def test_a_name_with_two_definitions_may_not_change() -> None:
    one, two = (values_of(b"#define A_ONE 1\n#define A_ONE %d\n" % n) for n in (1, 2))
    assert one is not None
    assert two is not None
    assert one.changed(two) is None


def test_a_value_does_not_trade_places_with_an_empty_one() -> None:
    texts = (
        b"#define A_B 1\n#define A_C 1\n#define A_C \n",
        b"#define A_B 2\n#define A_C \n#define A_C 1\n",
    )
    one, two = map(values_of, texts)
    assert one is not None
    assert two is not None
    assert one.changed(two) is None


@pytest.mark.parametrize(
    "text",
    [
        b"int a;\n",
        b"#define A_ONE\n",
        b"#define A_ONE 1 2\n",
        b"#define A_ONE (1)\n",
        b"#define A_ONE __DATE__\n",
        b"#define A_ONE word\n",
        b"#define A_ONE -1\n",
        b"#define A_ONE 1e+5\n",
        b"#define A_ONE 1'000\n",
        b"#define A_ONE 1_x\n",
        b'#define A_ONE "a*b"\n',
        b'#define A_ONE "a"_x\n',
        b'#define A_ONE u"a"\n',
        b'#define A_ONE "a" "b"\n',
        b"#define A_ONE 1\r\n",
        b"#define A_ONE 1\x0c\n",
        b"#define A_ONE 1\n\0",
        b"%:define A_ONE 1\n",
        b"#undef A_ONE\n",
        b"#define A_ONE(...) 1\n",
        b'#define A_ONE "\\n"\n',
        b'#define A_ONE "??/"\n',
        b"#define A_ONE 1",
        b"#define A_ONE 1 \\\n",
        b"#define A_ONE 'a'\n",
        b"#define A_ONE \xc3\xa4\n",
        b'int a;\\\n#define A_ONE 1\n',
        b'int a;\\ \n  #define A_ONE 1\n',
        b'auto s = R"(\n#define A_ONE 1\n)";\n',
        b'auto s = u8R"(\n#define A_ONE 1\n)";\n',
        b"int a; ??/\n#define A_ONE 1\n",
        b"#define A_ONE 1\n" * 20_001,
    ],
)  # fmt: skip
def test_other_texts_have_none(text: bytes) -> None:
    assert values_of(text) is None


def test_a_string_that_ends_with_r_is_no_raw_one() -> None:
    assert values_of(b'#define A_TAR "CONFIG_TAR"\n') is not None


def test_lines_of_these_names_are_left_out() -> None:
    left = without_definitions(TEXT, frozenset({b"A_TWO"}))
    assert b"A_TWO" not in left
    assert left.count(b"\n") == TEXT.count(b"\n")


@pytest.mark.parametrize(
    "text",
    [
        b"#define A " + b"(" * 200_000, b"#define A " + b'"a" ' * 50_000 + b"?",
        b"#define A " + b" " * 200_000 + b"?", b"#define A 1" + b"1" * 200_000,
        b"#" + b" " * 200_000 + b"x", b"#define A" + b"A" * 200_000,
        b" " * 300_000 + b"?", b"define \\ " + b"\\ " * 100_000, b"define" + b"\n" * 200_000,
        b"define" + (b"\\" + b" " * 1000) * 200, b"define" + b"u8" * 100_000,
    ],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_a_hostile_text_takes_linear_time(text: bytes) -> None:
    values_of(text + b"\n")
    without_definitions(text + b"\n", frozenset({b"A"}))


@pytest.mark.parametrize(
    "rows",
    [(b"A(x", b"1"), (b"A", b"f()"), (b"A", b'"*"'), (b"A\nB", b"1"), (b"", b"1"), (b"A", b"")],
)
def test_a_record_of_other_rows_is_refused(rows: tuple[bytes, bytes]) -> None:
    with pytest.raises(IntegrityError):
        decode_values(encode_fields([b"macro-values-1", b"r" * 32, *rows]))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    try:
        values = decode_values(data)
    except IntegrityError:
        return
    assert encode_values(values) == data


@given(st.integers(min_value=0, max_value=200))
def test_a_torn_record_is_refused(size: int) -> None:
    values = values_of(TEXT)
    assert values is not None
    whole = encode_values(values)
    assert decode_values(whole) == values
    with pytest.raises(IntegrityError):
        decode_values(whole[: min(size, len(whole) - 1)])


def test_of_a_text_with_many_definitions_little_is_kept() -> None:
    lines = (b"#define REGISTER_%05d__SHIFT 0x%08x\n" % (i, i) for i in range(5_000))
    text = b"".join(lines)
    kept = _Former(LexMode(has_line_comments=True, has_digit_separators=False))(text).values
    assert kept is not None
    assert len(kept) * 4 < len(text)
    assert decode_values(zlib.decompress(kept)) == values_of(text)
