"""A dictionary of bounded size that forgets what was not used for longest."""

from __future__ import annotations

from collections import OrderedDict


class Lru[K, V]:
    """What is forgotten here can be asked for again; nothing rests on it being kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> V | None:
        """Keep a value; return one that had to go."""
        self._items[key] = value
        self._items.move_to_end(key)
        return self._items.popitem(last=False)[1] if len(self._items) > self._most else None

    def drop(self, key: K) -> None:
        self._items.pop(key, None)

    def values(self) -> list[V]:
        return list(self._items.values())

    def __len__(self) -> int:
        return len(self._items)
