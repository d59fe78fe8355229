"""Asks compilers which files they read, and parses the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hpcc.cache.base.tools import MAX_ANSWER_BYTES, ask
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
    reason = UncacheableReason.DEPENDENCIES_FAILED
    return parse_dependencies(answer_about(prepared, argv, is_cancelled, reason, seconds))


def answer_about(
    prepared: Prepared,
    argv: Sequence[bytes],
    is_cancelled: Callable[[], bool],
    reason: UncacheableReason,
    seconds: float = _SECOND_RUN_SECONDS,
    variables: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """Run a compiler where and as the compile runs; return its whole stdout.

    `variables` are added to the compile's environment.

    Raises:
        UncacheableError: `reason`, if it did not start, failed, wrote too much or took too long.
    """
    env = {**prepared.family.question_environment(prepared.request.env), **(variables or {})}
    try:
        answer = ask(
            argv, env=env, cwd=prepared.cwd, is_cancelled=is_cancelled, timeout_seconds=seconds
        )
    except OSError as error:
        raise UncacheableError(reason) from error
    if answer.exit_code != 0 or len(answer.stdout) >= MAX_ANSWER_BYTES:
        raise UncacheableError(reason)
    return answer.stdout
