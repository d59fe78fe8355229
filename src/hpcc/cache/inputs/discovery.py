"""Asks compilers which files they read, and parses the answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from hpcc.cache.base.tools import MAX_ANSWER_BYTES, ask
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.listed_names import parse_dependencies
from hpcc.cache.key.prepare import Prepared
from hpcc.core.reasons.uncacheable import UncacheableReason

_SECOND_RUN_SECONDS: Final = 120.0


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


class Expanded(NamedTuple):
    """The preprocessed texts of a unit; `host` are those that an assembler of the host may get."""

    every: bytes
    host: bytes


def expand_passes(
    prepared: Prepared,
    is_cancelled: Callable[[], bool],
    variables: Mapping[bytes, bytes],
    *,
    only_host: bool,
) -> Expanded:
    """Ask nvcc for the runs of its preprocessor, and run each, or those for the host only.

    Raises:
        UncacheableError: one of them failed, or nvcc's answer is not understood.
    """
    from hpcc.compilers.nvcc.probe import read_dry_run, read_passes  # a hit of gcc loads none of it

    family, reason = prepared.family, UncacheableReason.EXPANSION_FAILED
    argv = family.expansion_command(
        prepared.request.compiler, prepared.invocation, keeps_lines=False
    )
    env = family.question_environment(prepared.request.env)
    try:
        answer = ask(argv, env=env, cwd=prepared.cwd, is_cancelled=is_cancelled)
    except OSError as error:
        raise UncacheableError(reason) from error
    shown, passes = read_dry_run(answer.stderr), read_passes(answer.stderr)
    if answer.exit_code or shown is None or passes is None:
        raise UncacheableError(reason)
    names = (b"PATH", b"LD_LIBRARY_PATH")
    inner = {**variables, **{n: shown.variables[n] for n in names if n in shown.variables}}
    every: list[bytes] = []
    host: list[bytes] = []
    for run in (run for run in passes if run.is_host or not only_host):
        program = _found(run.argv[0], inner.get(b"PATH", b""))
        text = answer_about(
            prepared, (program, *run.argv[1:]), is_cancelled, reason, variables=inner
        )
        every.append(text)
        host += [text] if run.is_host else []
    return Expanded(b"\n".join(every), b"\n".join(host))


def _found(program: bytes, places: bytes) -> bytes:
    """Return a program's path. Python would look for it in the daemon's PATH."""
    if b"/" in program:
        return program
    paths = (os.path.join(place, program) for place in places.split(b":"))
    return next((path for path in paths if os.access(path, os.X_OK)), b"/nonexistent")


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
