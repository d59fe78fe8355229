"""Bounded memos against slow models that keep a list of pairs, the least recently used first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcc.core.memo import BoundedMemo, LruMemo, SizedMemo

_STEPS = st.lists(
    st.tuples(st.sampled_from(("write", "use", "get", "drop")), st.integers(0, 5), st.integers())
)


@given(st.integers(1, 4), _STEPS)
def test_an_lru_memo_holds_what_a_list_of_uses_says(
    most: int, steps: list[tuple[str, int, int]]
) -> None:
    memo: LruMemo[int, int] = LruMemo(most)
    model: list[tuple[int, int]] = []
    for step, key, value in steps:
        known = dict(model).get(key)
        others = [pair for pair in model if pair[0] != key]
        match step:
            case "write":
                memo[key] = value
                model = [*others, (key, value)][-most:]
            case "use":
                assert memo.use(key) == known
                model = model if known is None else [*others, (key, known)]
            case "get":
                assert memo.get(key) == known
            case _:
                assert memo.pop(key, None) == known
                model = others
        assert list(memo.items()) == model


@given(st.integers(1, 4), _STEPS)
def test_a_bounded_memo_holds_what_was_written_since_it_was_full(
    most: int, steps: list[tuple[str, int, int]]
) -> None:
    memo: BoundedMemo[int, int] = BoundedMemo(most)
    model: dict[int, int] = {}
    for step, key, value in steps:
        match step:
            case "write":
                memo[key] = value
                model = {**({} if len(model) == most else model), key: value}
            case "drop":
                assert memo.pop(key, None) == model.pop(key, None)
            case _:
                assert memo.get(key) == model.get(key)
        assert memo == model
        assert len(memo) <= most


@given(st.integers(1, 4), st.integers(0, 9), _STEPS)
def test_a_sized_memo_holds_what_a_list_of_uses_says(
    most: int, most_bytes: int, steps: list[tuple[str, int, int]]
) -> None:
    memo: SizedMemo[int, int] = SizedMemo(
        lambda value: abs(value) % 7, max_bytes=most_bytes, max_entries=most
    )
    model: list[tuple[int, int]] = []
    for step, key, value in steps:
        known = dict(model).get(key)
        others = [pair for pair in model if pair[0] != key]
        match step:
            case "write":
                memo.put(key, value)
                model = [*others, (key, value)]
                while len(model) > most or sum(abs(v) % 7 for _, v in model) > most_bytes:
                    del model[0]
            case "use":
                assert memo.use(key) == known
                model = model if known is None else [*others, (key, known)]
            case "get":
                assert memo.get(key) == known
            case _:
                memo.drop(key)
                model = others
        assert {k: memo.get(k) for k in range(6)} == {k: dict(model).get(k) for k in range(6)}
