"""Hardens the interpreter of a warden: it imports nothing any more and prints no errors."""

from __future__ import annotations

import gc
import linecache
import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoMoreModules:
    """Finds no module: a warden cannot open files, so an import must be a plain error."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        raise ModuleNotFoundError(f"a warden imports nothing: {name}", name=name)


def harden() -> None:
    """Stop the interpreter from opening files, even to report an error."""
    logging.disable(logging.CRITICAL)
    linecache.updatecache = lambda *_, **__: []
    linecache.checkcache = lambda *_, **__: None
    sys.meta_path[:] = [_NoMoreModules()]
    sys.excepthook = lambda *_: None
    sys.unraisablehook = lambda _: None
    # What was imported stays in memory that all wardens share.
    gc.collect()
    gc.freeze()
