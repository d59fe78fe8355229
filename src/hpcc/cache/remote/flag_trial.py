"""Tests whether a compiler of this machine accepts the flags that a farm compile adds."""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Mapping
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.cache.key.prepare import Prepared

_MAX_REMEMBERED: Final = 256


class FlagTrial:
    """Tests each compiler and set of flags once. Thread-safe: a race only tests twice."""

    def __init__(self) -> None:
        self._accepted: dict[tuple[bytes, tuple[bytes, ...]], bool] = {}

    def accepts(self, prepared: Prepared, arguments: tuple[bytes, ...]) -> bool:
        """Tell whether the compiler takes these arguments, with an `empty.c`, in silence."""
        key = (prepared.identity.digest, arguments)
        known = self._accepted.get(key)
        if known is None:
            request = prepared.request
            env = prepared.family.question_environment(request.env)
            known = _takes_in_silence(request.compiler, env, arguments)
            if len(self._accepted) >= _MAX_REMEMBERED:
                self._accepted.clear()
            self._accepted[key] = known
        return known


def _takes_in_silence(
    compiler: bytes, env: Mapping[bytes, bytes], arguments: tuple[bytes, ...]
) -> bool:
    with tempfile.TemporaryDirectory(prefix="hpcc-cl-") as name:
        directory = os.fsencode(name)
        try:
            with open(posixpath.join(directory, b"empty.c"), "wb"):
                pass
            answer = ask([compiler, *arguments], env=env, cwd=directory)
        except OSError:
            return False
    return answer.exit_code == 0 and not (answer.stdout or answer.stderr)
