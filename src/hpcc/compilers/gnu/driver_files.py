"""Facts from a driver's output: its target, its program directories, and GCC's specs files.

Source: gcc/gcc.cc, driver::set_up_specs and find_a_file. The names were compared with those that
GCC 12-14 ask the kernel for.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.spec.drivers import TARGET

_INSTALL: Final = re.compile(rb"^install: (/.*)/$", re.MULTILINE)
_SEARCHED: Final = re.compile(rb"^(?:programs|libraries): =(.*)$", re.MULTILINE)
_PROGRAMS: Final = re.compile(rb"^programs: =(.*)$", re.MULTILINE)


def program_directories(searched: bytes) -> tuple[bytes, ...]:
    """Return where a driver looks for programs, in order, from its `-print-search-dirs`."""
    match = _PROGRAMS.search(searched)
    return () if match is None else tuple(dict.fromkeys(match[1].split(b":")))


def specs_names(about: bytes, searched: bytes, library_path: bytes | None) -> tuple[bytes, ...]:
    """Return the specs files that a GCC would read, from its `-v` and `-print-search-dirs`."""
    target, install = TARGET.search(about), _INSTALL.search(searched)
    if target is None or install is None:
        return ()
    machine = target[1]
    version = machine + b"/" + install[1].rpartition(b"/")[2] + b"/"
    endings = (b"/gcc/" + version, b"/gcc/" + machine + b"/", b"/gcc/")
    tools = b"/" + machine + b"/lib/"
    names: dict[bytes, None] = {}
    for match in _SEARCHED.finditer(searched):
        for directory in match[1].split(b":"):
            if directory.endswith((*endings, tools, tools + version)):
                names[directory + b"specs"] = None
    # An empty part stands for the working directory, and so does an empty variable.
    for part in () if library_path is None else library_path.split(b":"):
        directory = (part or b".").rstrip(b"/") + b"/"
        names[directory + version + b"specs"] = None
        names[directory + b"specs"] = None
    return tuple(names)
