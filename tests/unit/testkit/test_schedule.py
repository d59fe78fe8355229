"""Which tests one pytest process gets, and in which order."""

from __future__ import annotations

from hpcc_testkit.suite.schedule import _share, dealt


def test_the_guests_of_end_to_end_tests_and_the_others_are_two_shares_dealt_first() -> None:
    tests = [
        "tests/unit/test_a.py::test_a",
        "tests/vm/test_a.py::test_a",
        "tests/mutation/test_a.py::test_a[x]",
        "tests/e2e/test_a.py::test_a",
        "tests/vm/test_b.py::test_a",
        "tests/e2e/test_b.py::test_a",
    ]
    order = [_share(tests[index]) for index in dealt(tests)]
    assert sorted(set(order[:4])) == ["tests/e2e/", "tests/vm/"]
    assert order[4:] == ["tests/mutation/test_a.py", "tests/unit/test_a.py"]
    # What is in one share stays together, in its own order.
    assert [order.count(share) for share in ("tests/vm/", "tests/e2e/")] == [2, 2]
    assert order[0] == order[1]


def test_a_files_tests_stay_together_and_a_large_files_tests_do_not() -> None:
    small = {_share(f"tests/unit/test_a.py::test_{n}") for n in range(50)}
    large = {_share(f"tests/integration/grammar/test_grammar_rows.py::test_{n}") for n in range(50)}
    assert len(small) == 1
    assert len(large) == 8
