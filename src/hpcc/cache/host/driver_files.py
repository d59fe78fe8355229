"""Tests whether an assembler lists the files that its directives read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from hpcc.cache.base.tools import ask
from hpcc.compilers.invocation.depfile import parse_depfile, prerequisites
from hpcc.core import CallerError


def lists_its_files(assembler: bytes, env: Mapping[bytes, bytes]) -> bool:
    """Tell whether `--MD` lists the files of `.incbin` and `.include`; runs the assembler once."""
    with tempfile.TemporaryDirectory(prefix="hpcc-as-") as name:
        root = os.fsencode(name)
        data, more, source, listing, output = (
            root + b"/" + base for base in (b"data", b"more", b"source.s", b"listing", b"output")
        )
        for path, text in ((data, b"x"), (more, b""), (source, b'.incbin "%s"\n.include "%s"\n')):
            with open(path, "wb") as file:
                file.write(text % (data, more) if path == source else text)
        argv = [assembler, b"--MD", listing, b"-o", output, source]
        try:
            if ask(argv, env=env, cwd=b"/").exit_code != 0:
                return False
            with open(listing, "rb") as file:
                named = prerequisites(parse_depfile(file.read(1 << 16)))
        except (OSError, CallerError):
            return False
    return {data, more, source} == set(named) and named[-1] == source
