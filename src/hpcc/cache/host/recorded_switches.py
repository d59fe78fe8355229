"""Finds out whether a Clang writes its command line into debug information without a flag for it.

Debian's Clang 18 does. Its objects would then contain the flags that hpcc adds to list inputs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Final

from hpcc.cache.base.tools import ask
from hpcc.compilers.invocation.dependencies import Recording
from hpcc.core.memo import BoundedMemo

_MARK: Final = b"hpcc_asks_for_this"
_MAX_OBJECT_BYTES: Final = 1 << 20
_MAX_REMEMBERED: Final = 256


class Recorders:
    """Asks each Clang once. Thread-safe: a race only asks twice."""

    def __init__(self) -> None:
        self._known: BoundedMemo[bytes, bool] = BoundedMemo(_MAX_REMEMBERED)

    def records(
        self,
        recording: Recording,
        identity: bytes,
        compiler: bytes,
        env: Mapping[bytes, bytes],
    ) -> bool:
        """Tell whether this compile's object will contain every flag; True in doubt."""
        if recording is not Recording.ASK:
            return recording is Recording.ALWAYS
        known = self._known.get(identity)
        if known is None:
            known = self._known[identity] = _ask(compiler, env)
        return known


def _ask(compiler: bytes, env: Mapping[bytes, bytes]) -> bool:
    with tempfile.TemporaryDirectory(prefix="hpcc-records-") as name:
        root = os.fsencode(name)
        source, output = root + b"/a.c", root + b"/a.o"
        try:
            with open(source, "wb") as file:
                file.write(b"int i;\n")
            argv = [compiler, b"-D" + _MARK, b"-g", b"-c", source, b"-o", output]
            answer = ask(argv, env=env, cwd=b"/")
            with open(output, "rb") as file:
                return answer.exit_code != 0 or _MARK in file.read(_MAX_OBJECT_BYTES)
        except OSError:
            return True
