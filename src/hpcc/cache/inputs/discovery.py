"""Asks compilers which files they read, and parses the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.depfile import parse_depfile, prerequisites
from hpcc.core import CallerError
from hpcc.core.reasons.uncacheable import UncacheableReason

_SECOND_RUN_SECONDS: Final = 120.0


def parse_dependencies(data: bytes) -> tuple[bytes, ...]:
    """Return the files that a depfile lists, in its order; at least one.

    Raises:
        UncacheableError: the bytes are not a depfile, or list no file.
    """
    try:
        names = prerequisites(parse_depfile(data))
    except CallerError as error:
        raise UncacheableError(UncacheableReason.DEPFILE) from error
    if not names:
        raise UncacheableError(UncacheableReason.DEPFILE)
    return names


def ask_dependencies(
    prepared: Prepared,
    is_cancelled: Callable[[], bool],
    seconds: float = _SECOND_RUN_SECONDS,
    injected: tuple[bytes, ...] = (),
    *,
    is_parsing: bool = False,
) -> tuple[bytes, ...]:
    """Ask the compiler for the whole closure with `-M`.

    `is_parsing`: let it parse the unit, so that it obeys each pragma.

    Raises:
        UncacheableError: the compiler did not start, failed or exceeded the time.
    """
    family, invocation = prepared.family, prepared.invocation
    command = family.parsing_command if is_parsing else family.dependency_command
    argv = command(prepared.request.compiler, invocation, injected)
    try:
        answer = ask(
            argv,
            env=family.question_environment(prepared.request.env),
            cwd=prepared.cwd,
            is_cancelled=is_cancelled,
            timeout_seconds=seconds,
        )
    except OSError as error:
        raise UncacheableError(UncacheableReason.DEPENDENCIES_FAILED) from error
    if answer.exit_code != 0:
        raise UncacheableError(UncacheableReason.DEPENDENCIES_FAILED)
    return parse_dependencies(answer.stdout)
