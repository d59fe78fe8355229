"""Asks each linker once whether it can write a list of its inputs.

The driver passes `--help` to the linker that it would use. An answer holds for one compiler, the
words and variables that choose the linker, and, where these name directories, one directory. It
may be out of date after an update of the linker: then the link fails, the user's own command runs
instead, and the answer is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.tools import ask
from hpcc.cache.links.command import LinkCommand
from hpcc.core.memo import BoundedMemo

_MAX_REMEMBERED: Final = 256
_VARIABLES: Final = (b"PATH", b"COMPILER_PATH", b"GCC_EXEC_PREFIX", b"SDKROOT")
_FLAG: Final = b"--dependency-file"
# It writes its command into the output where a variable asks for that, which hpcc does not see.
_NOT_TRIED: Final = b"mold"

LinkerKey = tuple[object, ...]


class Linkers:
    """What is known of the linkers met so far. Thread-safe: a race only asks twice."""

    def __init__(self) -> None:
        self._known: BoundedMemo[LinkerKey, bool] = BoundedMemo(_MAX_REMEMBERED)

    def key(self, request: CompileRequest, identity: bytes, command: LinkCommand) -> LinkerKey:
        """Return what an answer is remembered by."""
        path = request.env.get(b"PATH", b"")
        is_relative = command.is_relative or not all(
            part.startswith(b"/") for part in path.split(b":")
        )
        variables = (request.env.get(name) for name in _VARIABLES)
        cwd = request.cwd if is_relative else b""
        return (request.compiler, identity, command.choosing, cwd, *variables)

    def lists_inputs(
        self,
        key: LinkerKey,
        request: CompileRequest,
        command: LinkCommand,
        is_cancelled: Callable[[], bool],
    ) -> bool:
        """Tell whether the linker of this command can list its inputs; False in doubt."""
        known = self._known.get(key)
        if known is None:
            argv = [request.compiler, *command.choosing, b"-Wl,--help"]
            try:
                answer = ask(argv, env=request.env, cwd=request.cwd, is_cancelled=is_cancelled)
            except OSError:
                return False
            if answer.exit_code < 0:  # it was killed, which says nothing
                return False
            known = not answer.exit_code and _FLAG in answer.stdout
            known = known and _NOT_TRIED not in answer.stdout
            self._known[key] = known
        return known

    def forget(self, key: LinkerKey) -> None:
        """Ask again at the next link."""
        self._known.pop(key, None)
