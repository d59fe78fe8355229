"""Dictionaries of a bounded size, for values that can be computed or fetched again.

Three rules of eviction are enough for the whole product:

- `BoundedMemo` forgets everything when it is full. It is a plain `dict` in memory and for every
  read, so a lookup on the hit path costs what a lookup in a `dict` costs. Use it where the bound
  only guards against unlimited growth and is rarely reached.
- `LruMemo` evicts one entry, the one that was used least recently. Use it where the bound is
  reached in normal operation, or where a flood of new keys must not evict what is in use.
- `SizedMemo` does the same and also bounds the bytes of all values together.

None has a lock. Under CPython each read is one atomic operation of the dictionary. Concurrent
writes of a `BoundedMemo` may exceed the bound by one entry per writing thread, or drop an entry
that was just written; both only cost work. The other two need a lock if several threads write
them; `get` and `use` are safe beside one writer.
Expiry is the caller's: store the time beside the value.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress


class BoundedMemo[K, V](dict[K, V]):
    """A `dict` of at most `max_entries` that drops all of them to make room for the next.

    An assignment to a full memo clears it, also when it replaces the value of a key that is there.
    Only item assignment checks the bound: do not call `update`, `setdefault` or `|=`.
    """

    __slots__ = ("_max_entries",)

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._max_entries = max_entries

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self._max_entries:
            self.clear()
        super().__setitem__(key, value)


class LruMemo[K, V](OrderedDict[K, V]):
    """A dictionary of at most `max_entries` that evicts the least recently used one.

    Item assignment and `use` count as use; `get` and `[]` do not. A memo that is read with
    `get` alone therefore evicts the entry that was written least recently.
    """

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._max_entries = max_entries

    def use(self, key: K) -> V | None:
        """Return the value of `key` and mark it as used; None when there is no such key."""
        value = self.get(key)
        if value is not None:
            with suppress(KeyError):  # another thread dropped it meanwhile
                self.move_to_end(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._max_entries:
            self.popitem(last=False)


class SizedMemo[K, V]:
    """At most `max_entries` values of at most `max_bytes` together, least recently used out first.

    `size_of` returns the bytes of a value and must return the same each time. A value that is
    larger than `max_bytes` is not kept, and evicts all others. `put` and `use` count as use.
    """

    def __init__(
        self, size_of: Callable[[V], int], *, max_bytes: int, max_entries: int = sys.maxsize
    ) -> None:
        self._size_of = size_of
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._items: OrderedDict[K, V] = OrderedDict()
        self._total_bytes = 0
        # The dictionary's own method, so that a lookup on the hit path calls no Python code.
        self.get: Callable[[K], V | None] = self._items.get

    def use(self, key: K) -> V | None:
        """Return the value of `key` and mark it as used; None when there is no such key."""
        value = self.get(key)
        if value is not None:
            with suppress(KeyError):  # another thread dropped it meanwhile
                self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Store a value and evict values beyond the bounds."""
        self.drop(key)
        self._items[key] = value
        self._total_bytes += self._size_of(value)
        while self._items and (
            self._total_bytes > self._max_bytes or len(self._items) > self._max_entries
        ):
            self._total_bytes -= self._size_of(self._items.popitem(last=False)[1])

    def drop(self, key: K) -> None:
        """Remove one value, if it is stored."""
        value = self._items.pop(key, None)
        if value is not None:
            self._total_bytes -= self._size_of(value)

    def clear(self) -> None:
        """Remove all values."""
        self._items.clear()
        self._total_bytes = 0
