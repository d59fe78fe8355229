"""A guest's dependency files are rewritten with this machine's paths and stored."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.remote.depfiles import Depfiles
from hpcc.compilers.invocation.guest import WIDE_ROOT, GuestMap
from hpcc.core import CallerError


def test_a_remembered_file_follows_the_headers_that_come_and_go(tmp_path: Path) -> None:
    root, header = os.fsencode(tmp_path / "project"), tmp_path / "image.h"
    data = b"a.o: /src/a.c /src/b.h " + os.fsencode(header) + b"\n"
    own = b"a.o: " + root + b"/a.c " + root + b"/b.h"
    depfiles = Depfiles()
    for is_there in (False, False, True, True, False):
        header.touch() if is_there else header.unlink(missing_ok=True)
        text = depfiles.of(data, GuestMap(root, root, lambda _path: False))
        assert text.replace(b" \\\n", b"") == own + (
            b" " + os.fsencode(header) + b"\n" if is_there else b"\n"
        )


def test_one_text_of_guests_that_have_the_project_elsewhere_has_two_meanings() -> None:
    data = b"a.o: /src/hpcc-project/a.h\n"
    guest = GuestMap(b"/p", b"/p", lambda _path: False)
    depfiles = Depfiles()
    for _ in range(2):
        assert depfiles.of(data, guest) == b"a.o: /p/hpcc-project/a.h\n"
        assert depfiles.of(data, replace(guest, base=WIDE_ROOT)) == b"a.o: /p/a.h\n"


def test_what_is_no_dependency_file_stays_refused(tmp_path: Path) -> None:
    depfiles = Depfiles()
    for _ in range(2):
        with pytest.raises(CallerError):
            depfiles.of(b"no rule\n", GuestMap(os.fsencode(tmp_path), b"/", lambda _path: False))
