"""The word or variable that made a compile a bypass."""

from __future__ import annotations

import pytest

from hpcc.cache.key.environment import environment_key
from hpcc.cache.key.refused import refused_word


@pytest.mark.parametrize(
    ("command", "reason", "word"),
    [
        ("gcc -c a.c -o a.o -fplugin=x", "plugin", "-fplugin=x"),
        ("gcc -O2 --zz -c a.c", "unknown-flag", "--zz"),
        ("gcc -O2 --zz -c a.c --zz", "unknown-flag", "--zz"),
        ("gcc -c a.mi -o a.o", "no-preprocessing", "a.mi"),
        ("gcc -c h.h -o h.gch -fplugin=y", "plugin", "-fplugin=y"),
        ("clang -c a.c -Xclang -load", "pass-through", "-Xclang"),
        ("gcc a.c -o a", "link", ""),
        ("gcc -c a.c", "plugin", ""),
        ("gfortran -c a.f90", "other-compiler", ""),
    ],
)
def test_the_refused_word_is_named(command: str, reason: str, word: str) -> None:
    argv = command.encode().split()
    assert refused_word(b"/usr/bin/" + argv[0], argv, {}, reason) == word.encode()


def test_the_refused_variable_is_named() -> None:
    env = {b"LANG": b"C", b"DEPENDENCIES_OUTPUT": b"x.d"}
    found = refused_word(b"/usr/bin/gcc", (b"gcc", b"-c", b"a.c"), env, "dependencies-output")
    assert found == b"DEPENDENCIES_OUTPUT=x.d"


def test_a_long_command_line_costs_no_search() -> None:
    argv = (b"gcc", b"-c", b"a.c", b"-fplugin=x", *[b"-DX"] * 3000)
    assert refused_word(b"/usr/bin/gcc", argv, {}, "plugin") == b""


@pytest.mark.parametrize("name", [b"MALLOC_CONF", b"TCMALLOC_STATS", b"MIMALLOC_VERBOSE"])
def test_variables_of_allocators_are_in_the_key(name: bytes) -> None:
    keys = {environment_key(env) for env in ({}, {name: b"1"}, {name: b"2"})}
    assert len(keys) == 3
