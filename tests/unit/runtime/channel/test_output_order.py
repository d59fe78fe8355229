"""The order in which a guest may announce its outputs, and announcements that are refused."""

from __future__ import annotations

import pytest

from hpcc.core import MAX_OUTPUT_ENTRIES
from hpcc.runtime.channel.output_order import OutputOrder
from hpcc_testkit.guests.guest_contract import request

REQUEST = request("cc", outputs=("a.o", "both", "c.o"), output_directories=("both", "d", "z"))


def taken(*paths: str) -> list[bool]:
    order = OutputOrder(REQUEST)
    return [order.take(path) for path in paths]


def test_files_come_first_and_directories_with_their_parents() -> None:
    assert all(taken("a.o", "c.o", "both/", "both/x/", "both/x/1", "both/2", "z/", "z/1"))
    assert all(taken("both", "d/"))
    assert all(taken())


@pytest.mark.parametrize(
    "paths",
    [
        ("c.o", "a.o"),
        ("a.o", "a.o"),
        ("b.o",),
        ("d/x",),
        ("d/", "a.o"),
        ("d/", "d/"),
        ("z/", "d/"),
        ("d/", "z/", "d/x"),
        ("d/", "d/x/y"),
        ("d/", "d/x", "d/x/"),
        ("d/", "d/x/", "d/x"),
        ("d/", "d/x", "d/x/y"),
        ("d/", "d/x", "d/x"),
        ("d/", "d/../a.o"),
        ("d/", "d/./x"),
        ("d/", "d//x"),
        ("d/", "d//"),
        ("d/", "dd/x"),
        ("d/", "/etc/passwd"),
        ("d/", "/"),
        ("d/", ""),
        ("d/", "d/\0"),
        ("d/", "d/" + "x" * 256),
        ("both", "both/"),
        ("/",),
        ("",),
    ],
)
def test_an_output_that_may_not_come_now_is_a_breach(paths: tuple[str, ...]) -> None:
    assert taken(*paths)[-1] is False


def test_a_million_entries_in_an_output_directory_are_a_breach() -> None:
    order = OutputOrder(REQUEST)
    assert order.take("d/")
    assert all(order.take(f"d/{n}") for n in range(MAX_OUTPUT_ENTRIES - 1))
    assert not order.take("d/one-more")
