"""Asks a driver where it looks for headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hpcc.cache.base.tools import ask
from hpcc.cache.host.driver_answers import search_lines
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.drivers import TARGET


class SearchAnswer(NamedTuple):
    """The directories of headers in order, and the target that the driver compiles for."""

    directories: tuple[bytes, ...]
    target: bytes


def search_of(
    family: CompilerFamily,
    compiler: bytes,
    invocation: Invocation,
    env: Mapping[bytes, bytes],
    cwd: bytes,
) -> SearchAnswer:
    """Run the driver for its include path.

    Raises:
        OSError: it did not run or did not print its search path.
    """
    question = family.search_question(invocation)
    asking = {**family.question_environment(env), b"LC_ALL": b"C"}
    answer = ask([compiler, *question], env=asking, cwd=cwd)
    if answer.exit_code != 0:
        # Some flags need another: -mcmodel=kernel is an error where code is PIC by default.
        answer = ask([compiler, *invocation.code_arguments, *question], env=asking, cwd=cwd)
    found = search_lines(answer.stderr)
    # -nostdinc leaves an empty list; without it, an empty list is an answer hpcc cannot read.
    if answer.exit_code != 0 or not (found or b"-nostdinc" in invocation.search_arguments):
        raise OSError("the compiler did not tell its search path")
    target = TARGET.search(answer.stderr)
    return SearchAnswer(found, b"" if target is None else target[1])
