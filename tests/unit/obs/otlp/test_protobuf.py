"""The wire format: what hpcc writes is read back, and hostile bytes are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.obs.otlp.messages import rejected_in
from hpcc.obs.otlp.protobuf import data, fixed64, number, read_fields, text

_NUMBERS = st.integers(0, (1 << 64) - 1)


@given(st.integers(1, 1 << 28), _NUMBERS)
def test_a_number_is_read_as_it_was_written(field: int, value: int) -> None:
    assert list(read_fields(number(field, value, always=True))) == [(field, value)]
    assert list(read_fields(fixed64(field, value))) == (
        [(field, value.to_bytes(8, "little"))] if value else []
    )


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_is_utf_8_in_the_message(value: str) -> None:
    ((field, raw),) = read_fields(text(7, value, always=True))
    assert field == 7
    assert isinstance(raw, bytes)
    assert raw.decode() == value.encode("utf-8", "replace").decode()


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_refused(raw: bytes) -> None:
    try:
        found = list(read_fields(raw))
    except ValueError:
        return
    assert sum(len(v) for _, v in found if isinstance(v, bytes)) <= len(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x08", b"\x08" + b"\xff" * 10, b"\x12\x05abcd", b"\x0b", b"\x09\x00", b"\x0a\x7f",
        data(1, b"\x08"), b"\x08\x01",
    ],
    ids=["no value", "no end", "short", "group", "short fixed", "long", "inside", "a number"],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(a|not a) "):
        rejected_in(raw)


def test_an_answer_says_how_many_were_rejected() -> None:
    assert rejected_in(b"") == 0
    partial = number(1, 3) + text(2, "too old")
    assert rejected_in(data(1, partial) + text(9, "a later field")) == 3
