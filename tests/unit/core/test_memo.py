"""Bounded memos: what each evicts, and when."""

from __future__ import annotations

from hpcc.core.memo import BoundedMemo, LruMemo, SizedMemo


def test_a_full_bounded_memo_forgets_everything_for_the_next_entry() -> None:
    memo: BoundedMemo[str, int] = BoundedMemo(2)
    memo["a"] = 1
    memo["b"] = 2
    assert memo == {"a": 1, "b": 2}
    memo["c"] = 3
    assert memo == {"c": 3}


def test_a_new_value_for_a_known_key_clears_a_full_bounded_memo_as_well() -> None:
    memo: BoundedMemo[str, int] = BoundedMemo(2)
    memo["a"] = 1
    memo["b"] = 2
    memo["a"] = 3
    assert memo == {"a": 3}


def test_an_lru_memo_evicts_the_entry_that_was_used_least_recently() -> None:
    memo: LruMemo[str, int] = LruMemo(2)
    memo["a"] = 1
    memo["b"] = 2
    assert memo.use("a") == 1
    memo["c"] = 3
    assert list(memo.items()) == [("a", 1), ("c", 3)]


def test_a_lookup_with_get_does_not_count_as_use() -> None:
    memo: LruMemo[str, int] = LruMemo(2)
    memo["a"] = 1
    memo["b"] = 2
    assert memo.get("a") == 1
    memo["c"] = 3
    assert list(memo) == ["b", "c"]


def test_a_write_counts_as_use_and_does_not_evict_when_the_key_is_known() -> None:
    memo: LruMemo[str, int] = LruMemo(2)
    memo["a"] = 1
    memo["b"] = 2
    memo["a"] = 3
    assert list(memo.items()) == [("b", 2), ("a", 3)]


def test_use_of_an_unknown_key_returns_none_and_adds_nothing() -> None:
    memo: LruMemo[str, int] = LruMemo(2)
    assert memo.use("a") is None
    assert not memo


def test_a_sized_memo_evicts_by_bytes_what_was_used_least_recently() -> None:
    memo: SizedMemo[str, bytes] = SizedMemo(len, max_bytes=5)
    memo.put("a", b"11")
    memo.put("b", b"22")
    assert memo.use("a") == b"11"
    memo.put("c", b"33")
    assert [memo.get(key) for key in "abc"] == [b"11", None, b"33"]


def test_a_replaced_value_of_a_sized_memo_frees_its_bytes() -> None:
    memo: SizedMemo[str, bytes] = SizedMemo(len, max_bytes=5)
    memo.put("a", b"1111")
    memo.put("a", b"1")
    memo.put("b", b"2222")
    assert [memo.get(key) for key in "ab"] == [b"1", b"2222"]


def test_a_value_that_is_too_large_for_a_sized_memo_is_not_kept() -> None:
    memo: SizedMemo[str, bytes] = SizedMemo(len, max_bytes=5)
    memo.put("a", b"1")
    memo.put("b", b"222222")
    assert [memo.get(key) for key in "ab"] == [None, None]
    memo.put("c", b"33333")
    assert memo.get("c") == b"33333"


def test_a_cleared_sized_memo_has_all_its_room_again() -> None:
    memo: SizedMemo[str, bytes] = SizedMemo(len, max_bytes=5)
    memo.put("a", b"11111")
    memo.clear()
    assert memo.get("a") is None
    memo.put("b", b"22222")
    assert memo.get("b") == b"22222"
