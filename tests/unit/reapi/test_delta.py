"""Blobs as changes of other blobs: a delta reproduces its blob, and a hostile one is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import Blob, Digest
from hpcc.reapi.delta import MAX_INLINE_BLOBS, Delta, apply_delta, check_deltas, make_delta
from hpcc.reapi.limits import ReapiError

_BYTES = st.text("ab", max_size=12).map(str.encode)
OLD, NEW = Blob.of(b"one line\n" * 400), Blob.of(b"one line\n" * 200 + b"x" + b"one line\n" * 200)


@given(_BYTES, _BYTES)
def test_a_change_is_applied_to_what_it_was_made_from(old: bytes, new: bytes) -> None:
    base, blob = Blob.of(old), Blob.of(new)
    delta = make_delta(blob.digest, new, base.digest, old)
    check_deltas((delta,))
    assert apply_delta(delta, old) == blob


def test_a_changed_line_is_a_few_bytes() -> None:
    assert len(make_delta(NEW.digest, NEW.data, OLD.digest, OLD.data).data) == 1


@pytest.mark.parametrize(
    "deltas",
    [
        (Delta(NEW.digest, b"x"),),  # parts that are not its size
        (Delta(NEW.digest, b"", OLD.digest, OLD.digest.size_bytes, 1),),  # more than the base has
        (Delta(Digest("0" * 64, 1), b"", None, 1, 0),),  # of no base
        (Delta(Digest("0" * 64, 5 << 20), b"", Digest("1" * 64, 5 << 20), 5 << 20, 0),),
        (Delta(Digest("0" * 64, 1), b"x"),) * (MAX_INLINE_BLOBS + 1),
    ],
)
def test_what_breaks_a_limit_is_refused_before_anything_is_read(deltas: tuple[Delta, ...]) -> None:
    with pytest.raises(ReapiError):
        check_deltas(deltas)


def test_other_content_than_the_digest_says_is_refused() -> None:
    delta = make_delta(NEW.digest, NEW.data, OLD.digest, OLD.data)
    with pytest.raises(ReapiError):
        apply_delta(delta, OLD.data.replace(b"one", b"two"))
    with pytest.raises(ReapiError):
        apply_delta(Delta(NEW.digest, OLD.data))
