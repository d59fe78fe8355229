"""Finds names that lead out of a checkout, also if they lead back into it.

The last path of `../../one/x.h` from `C:/a/one/src` is below the root `C:/a/one`. In the checkout
`C:/b/two` the same name leads to `C:/b/one/x.h`. Paths are kept without `..`, as Windows opens
them, so a stored path below the root does not show on which way it was reached.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.core import WindowsPath, windows_key

_DRIVE: Final = re.compile(r"[A-Za-z]:")


def leaves(name: str, root: WindowsPath, start: WindowsPath) -> bool:
    """Tell whether the way of a name leads from a place in the root to one outside of it.

    `start` is the directory where a relative name begins.
    """
    words = re.split(r"[\\/]", name)
    if ".." not in words:
        return False
    drive, here = start.drive, list(map(windows_key, start.components))
    if _DRIVE.fullmatch(words[0]):
        drive, here = words.pop(0)[0], []
    top = [*map(windows_key, root.components)]
    if windows_key(drive) != windows_key(root.drive):
        return False
    for word in words:
        if word == "..":
            if here == top:
                return True
            del here[-1:]
        elif word not in {"", "."}:
            here.append(windows_key(word))
    return False
