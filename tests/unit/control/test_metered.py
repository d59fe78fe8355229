"""Each call to a control store is measured, and says whether the store answered."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from hpcc.control.metered import MeteredControlStore
from hpcc.ports import ConflictError, ControlStore, ControlStoreError, SystemClock


class Inner:
    """Raises what a test sets, from whatever method."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        async def method(*_: object, **__: object) -> str:
            if self.error is not None:
                raise self.error
            return name

        return method


def methods() -> list[str]:
    return [n for n, m in vars(ControlStore).items() if inspect.iscoroutinefunction(m)]


async def test_each_method_is_passed_on_and_measured_under_a_name_of_its_own() -> None:
    inner, calls = Inner(), list[tuple[str, bool]]()
    store = MeteredControlStore(
        inner,  # type: ignore[arg-type]  # a fake of each method
        SystemClock(),
        lambda name, _, is_answered: calls.append((name, is_answered)),
    )
    for name in methods():
        count = len(inspect.signature(getattr(MeteredControlStore, name)).parameters) - 1
        optional = 1 if name in {"put", "leases"} else 0
        assert await getattr(store, name)(*["x"] * (count - optional)) in {name, None}
    assert len({name for name, _ in calls}) == len(calls) == len(methods()) == 15
    assert all(is_answered for _, is_answered in calls)


@pytest.mark.parametrize(("error", "is_answered"), [
    (ControlStoreError("away"), False), (ConflictError("newer"), True),
])  # fmt: skip
async def test_a_conflict_is_an_answer_and_silence_is_none(
    error: Exception, is_answered: bool
) -> None:
    inner, calls = Inner(), list[tuple[str, bool]]()
    inner.error = error
    store = MeteredControlStore(
        inner,  # type: ignore[arg-type]  # as above
        SystemClock(),
        lambda name, _, answered: calls.append((name, answered)),
    )
    with pytest.raises(type(error)):
        await store.entries("space")
    assert calls == [("entries", is_answered)]
