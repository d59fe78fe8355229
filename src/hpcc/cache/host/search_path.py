"""Asks a driver where it looks for headers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

from hpcc.cache.base.tools import ProgramOutput, ask
from hpcc.cache.host.driver_answers import search_lines
from hpcc.compilers.invocation.database import QUESTION_DIRECTORY
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.drivers import TARGET


class SearchAnswer(NamedTuple):
    """The directories of headers in order, and the target that the driver compiles for.

    `config_directories` are where this driver looks for configuration files.
    """

    directories: tuple[bytes, ...]
    target: bytes
    config_directories: tuple[bytes, ...]


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
    if not question:
        return SearchAnswer((), b"", ())
    answer = _answer(family, compiler, invocation, question, env, cwd)
    if answer.exit_code != 0:
        # Some flags need another: -mcmodel=kernel is an error where code is PIC by default.
        question = [*invocation.code_arguments, *question]
        answer = _answer(family, compiler, invocation, question, env, cwd)
    found = search_lines(answer.stderr)
    # -nostdinc leaves an empty list; without it, an empty list is an answer hpcc cannot read.
    if answer.exit_code != 0 or not (found or b"-nostdinc" in invocation.search_arguments):
        raise OSError("the compiler did not tell its search path")
    target = TARGET.search(answer.stderr)
    places = family.config_directories(answer.stderr)
    return SearchAnswer(found, b"" if target is None else target[1], places)


def _answer(
    family: CompilerFamily,
    compiler: bytes,
    invocation: Invocation,
    question: list[bytes],
    env: Mapping[bytes, bytes],
    cwd: bytes,
) -> ProgramOutput:
    asking = {**family.question_environment(env), b"LC_ALL": b"C"}
    if not any(QUESTION_DIRECTORY in word for word in question):
        return ask([compiler, *question], env=asking, cwd=cwd)
    with tempfile.TemporaryDirectory(prefix="hpcc-probe-") as name:
        directory = os.fsencode(name)
        for base, text in family.search_files(invocation, directory).items():
            with open(os.path.join(directory, base), "wb") as file:
                file.write(text)
        words = [word.replace(QUESTION_DIRECTORY, directory) for word in question]
        return ask([compiler, *words], env=asking, cwd=cwd)
