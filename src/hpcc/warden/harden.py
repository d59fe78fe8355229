"""An interpreter that imports nothing any more and reports no error to anybody."""

from __future__ import annotations

import gc
import linecache
import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoMoreModules:
    """Finds none: a warden could not open a file, so that an import is a plain error."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        raise ModuleNotFoundError(f"a warden imports nothing: {name}", name=name)


def harden() -> None:
    """Make the interpreter one that does not reach for files, not even to report an error."""
    logging.disable(logging.CRITICAL)
    linecache.updatecache = lambda *_, **__: []
    linecache.checkcache = lambda *_, **__: None
    sys.meta_path[:] = [_NoMoreModules()]
    sys.excepthook = lambda *_: None
    sys.unraisablehook = lambda _: None
    # What was imported stays shared between all wardens.
    gc.collect()
    gc.freeze()
