from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcc.cache.base.path_stability import leads_to_a_process, names_a_process


@pytest.mark.parametrize(
    "argument",
    [
        b"/dev/stdin", b"/dev/fd/3", b"//dev//fd/3", b"/proc/self/fd/0", b"/proc", b"@/dev/fd/3",
        b"-I/proc/self/cwd", b"-include/dev/stdin", b"--sysroot=/proc/1/root", b"-Wa,/proc/x",
        b"-fprofile-use=/dev/fd/7", b"-o/proc/self/cwd/a.o",
    ],
)  # fmt: skip
def test_names_of_a_process_are_known(argument: bytes) -> None:
    assert names_a_process((b"-c", argument), {})


@pytest.mark.parametrize(
    "argument",
    [
        b"/home/me/proc/a.c", b"-I/home/dev/fd", b"-DX=/proc/self", b"/dev/null", b"/dev/shm/a.c",
        b"-ffile-prefix-map=/proc/self/cwd=.", b"-I/process", b"proc/x", b"-I/dev/stdinx",
    ],
)  # fmt: skip
def test_other_names_are_not(argument: bytes) -> None:
    assert not names_a_process((b"-c", argument), {})


def test_lists_of_directories_are_looked_through() -> None:
    assert names_a_process((), {b"CPATH": b"/usr/include:/proc/self/cwd"})
    assert names_a_process((), {b"LIBRARY_PATH": b"/dev/fd:x"})
    assert not names_a_process((), {b"PWD": b"/proc/self/cwd", b"PATH": b"/bin:/x/proc"})


def test_links_below_proc_are_found(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    os.symlink(b"/proc/self", root + b"/one")
    os.symlink(b"one/cwd", root + b"/two")
    os.symlink(b"three", root + b"/three")
    for name in (b"one", b"two", b"two/x", b"../../../../../../../../proc/1"):
        assert leads_to_a_process(root + b"/" + name)
    for name in (b"", b"three", b"gone/x"):
        assert not leads_to_a_process(root + b"/" + name)
