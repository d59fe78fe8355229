"""Each check of what leaves this machine is needed: without it, the test named after it fails."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

ATTACK = (
    "tests/integration/cache/test_closure_completion.py"
    "::test_a_hostile_guest_cannot_make_the_client_send"
)
COMPLETION, WANTED = "cache/remote/completion.py", "compilers/scan/missing_includes.py"


CASES = {
    "hidden": Case(
        WANTED,
        'if any(part.startswith(b".") and part not in {b".", b".."} for part in (*parents, base)):',
        "if False:",
        ATTACK + "[hidden-header-gcc]",
    ),
    "suffix": Case(
        WANTED,
        "suffix.lower() in _SUFFIXES",
        "suffix is not None",
        ATTACK + "[key-file-gcc]",
    ),
    "marker": Case(
        COMPLETION,
        "or (marker is not None and marker.excludes(inside))",
        "",
        ATTACK + "[excluded-by-the-marker-gcc]",
    ),
    "size": Case(
        COMPLETION,
        "or status.st_size > MAX_ADDED_BYTES",
        "",
        ATTACK + "[huge-gcc]",
    ),
    "links": Case(
        COMPLETION,
        '    for inside in (path[len(root.rstrip(b"/")) + 1 :], real[len(real_root.rstrip(b"/")) + 1 :]):',
        '    for inside in (path[len(root.rstrip(b"/")) + 1 :],):',
        ATTACK + "[hidden-by-a-link-gcc]",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
