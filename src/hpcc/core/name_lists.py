"""Short lists of the newest things by a name: who causes many of one name hides none of another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

_OTHERS: Final = ""


class NameLists[T]:
    """The last `of_a_name` items of each of `most_names` names. Further names share a list."""

    def __init__(self, of_a_name: int, most_names: int) -> None:
        self._of_a_name, self._most_names = of_a_name, most_names
        self._lists: dict[str, deque[T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        """Iterate over the last item of each name, then those before them, and so on."""
        for rank in range(1, self._of_a_name + 1):
            for held in self._lists.values():
                if len(held) >= rank:
                    yield held[-rank]

    def of(self, name: str) -> deque[T]:
        """Return the list that has the items of a name."""
        if name not in self._lists and len(self._lists) >= self._most_names:
            name = _OTHERS
        return self._lists.setdefault(name, deque(maxlen=self._of_a_name))

    def put(self, name: str, item: T) -> None:
        """Hold an item; the oldest one of its name makes room."""
        held = self.of(name)
        self._count += len(held) < self._of_a_name
        held.append(item)

    def drop_one(self) -> None:
        """Drop the oldest item of the longest list, if there is any item."""
        name = max(self._lists, key=lambda one: len(self._lists[one]), default=None)
        if name is None:
            return
        self._lists[name].popleft()
        self._count -= 1
        if not self._lists[name]:
            del self._lists[name]
