"""The launcher's parser of kept hits reads what the daemon writes, and nothing else."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from pathlib import Path

import pytest

from hpcc.cache.base.manifest import Absence
from hpcc.cache.results.results import Result
from hpcc.cache.windows.disk import FileTimes
from hpcc.cache.windows.hit_bytes import (
    encode_hit,
    file_check,
    kind_check,
    lacks_check,
    listing_check,
    real_check,
    state_check,
)
from hpcc.compilers.scan.windows_names import wide_key
from hpcc_testkit.cache.launcher import ROOT, build_tool

CORPUS = Path(__file__).parent / "corpus/kept_hit"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DCORPUS_MAIN")
HEAD_BYTES = 40


def checks() -> list[bytes]:
    """Return one check of each kind."""
    times = FileTimes(1, 2, 3, (4, 5), 1, True)
    absence = Absence(b"C:\\inc", frozenset({b"a.h", b"b??.h", b"z"}), frozenset({b"b??.h", b"c"}))
    return [
        file_check("C:\\w\\x.c", 6, hashlib.sha256(b"source").digest()),
        state_check("C:\\LLVM\\bin\\a.dll", times),
        kind_check("C:\\w\\.hpcc", is_directory=None),
        kind_check("C:\\w\\y.h", is_directory=False),
        listing_check("C:\\LLVM\\bin", {"a.dll": False, "漢字": True}),
        lacks_check(absence),
        lacks_check(Absence(b"C:\\none", frozenset(), frozenset())),
        real_check("C:\\w", "D:\\漢字"),
    ]


def hit(first: int = 0, count: int = 99, depfile: str = "") -> bytes:
    result = Result(b"OBJ", b"DEP" if depfile else None, b"out", b"err")
    some = checks()[first : first + count]
    return encode_hit(7, b"1252 437 1033", b"request", some, "C:\\w\\x.obj", depfile, result)


def again(data: bytes) -> bytes:
    """Return changed bytes with the size and digest that they should have."""
    size = struct.pack("<I", len(data))
    return data[:4] + size + hashlib.sha256(data[HEAD_BYTES:]).digest() + data[HEAD_BYTES:]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tool(
        "../native/fuzz_kept_hit.c", tmp_path_factory.mktemp("fuzz") / "corpus", *SANITIZERS
    )


def told(program: Path, directory: Path, *inputs: bytes) -> list[str]:
    """Return what the parser makes of each input."""
    names = []
    for number, data in enumerate(inputs):
        names.append(directory / f"{number:05}")
        names[-1].write_bytes(data)
    done = subprocess.run(
        [program, *names], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_parser_reads_what_the_daemon_writes(program: Path, tmp_path: Path) -> None:
    (line,) = told(program, tmp_path, hit())
    assert line.split() == [
        *("7", "1252", "437", "1033", "request", "C:\\w\\x.obj", "OBJ", "out", "err", "-:"),
        "1:C:\\w\\x.c:6:0:0:0:0:0:0",
        "2:C:\\LLVM\\bin\\a.dll:1:2:3:4:5:0:0",
        "3:C:\\w\\.hpcc:0:0:0:0:0:0:0",
        "3:C:\\w\\y.h:0:0:0:0:0:1:0",
        "4:C:\\LLVM\\bin:0:0:0:0:0:0:0",
        "5:C:\\inc:0:0:0:0:0:0:4",
        "5:C:\\none:0:0:0:0:0:0:0",
        "6:C:\\w:0:0:0:0:0:0:0:D:\\漢字",
    ]


def test_a_depfile_has_its_path_and_its_bytes(program: Path, tmp_path: Path) -> None:
    (line,) = told(program, tmp_path, hit(count=1, depfile="C:\\w\\漢\\x.d"))
    assert line.split()[8:10] == ["err", "C:\\w\\漢\\x.d:DEP"]
    nothing = Result(b"OBJ", b"", b"out", b"err")
    empty = encode_hit(7, b"1 2 3", b"r", checks()[:1], "C:\\w\\x.obj", "C:\\x.d", nothing)
    (line,) = told(program, tmp_path, empty)
    assert line.split()[8:10] == ["err", "C:\\x.d:"]


def test_a_hit_that_is_cut_is_refused(program: Path, tmp_path: Path) -> None:
    whole = hit(depfile="C:\\w\\x.d")
    answers = told(program, tmp_path, *(whole[:size] for size in range(len(whole))))
    assert answers == ["malformed"] * len(whole)


def test_hostile_hits_are_refused_before_a_file_is_looked_at(program: Path, tmp_path: Path) -> None:
    whole = hit(depfile="C:\\w\\x.d")
    hostile = [again(whole[:size]) for size in range(HEAD_BYTES, len(whole))]
    # Every number of the head, each with values that do not fit.
    for at in range(HEAD_BYTES + 20, HEAD_BYTES + 52, 4):
        for value in (0xFFFFFFFF, 0x7FFFFFFF, len(whole), 0):
            changed = whole[:at] + struct.pack("<I", value) + whole[at + 4 :]
            if changed != whole:
                hostile.append(again(changed))
    hostile += [
        again(whole.replace(b"C:\\w\\x.d\0", b"\\\\s\\x.d\0")),
        again(whole.replace(b"C:\\w\\x.d\0", b"C:\\w\0x.d\0")),
        again(whole.replace(b"C:\\w\\x.d\0", b"..\\w\\x.d\0")),
        hit(first=1),  # the first check is not that of a file
        hit(count=0),
        again(whole.replace(b"C:\\w\\x.c\0", b"\\\\s\\x.c\0")),
        again(whole.replace(b"C:\\w\\x.obj\0", b"C:\\w\0x.obj\0")),
        again(whole.replace(b"\1a.h\0", b"\1z.h\0")),  # not in order
        again(whole.replace(b"\1a.h\0", b"\4a.h\0")),
        again(whole.replace(b"\1a.h\0", b"\1A.h\0")),
        again(whole.replace(b"D:\\\xe6", b"\\\\\\\xe6")),
        again(whole + b"x"),
    ]
    assert set(told(program, tmp_path, *hostile)) == {"malformed"}


def test_the_corpus_is_read_without_a_byte_too_many(program: Path, tmp_path: Path) -> None:
    inputs = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    assert len(told(program, tmp_path, *inputs)) == len(inputs) > 1


_KEYS = r"""
#include <stdio.h>
#include "kept_hit.h"
int main(void) {
    uint16_t name[256] = {0};
    char key[256];
    size_t n = 0;
    int low, high;
    while ((low = getchar()) != EOF && (high = getchar()) != EOF) {
        name[n++] = (uint16_t)(low | high << 8);
        if (name[n - 1] || n == 1) continue;
        puts(hit_wide_key(name, key, sizeof key) ? key : "!");
        n = 0;
    }
    return 0;
}
"""


def test_names_are_compared_as_the_daemon_compares_them(tmp_path: Path) -> None:
    (tmp_path / "keys.c").write_text(_KEYS)
    program = build_tool(str(tmp_path / "keys.c"), tmp_path / "keys", f"-I{ROOT}/native")
    names = [
        "H.h",
        "Ünlich.h",
        "漢字.H",
        "\U0001f600a",
        "\u0130\u0131\u017f\u212a\u212b",
        "a" * 254,
    ]
    sent = b"".join(name.encode("utf-16-le") + b"\0\0" for name in names)
    done = subprocess.run([program], input=sent, capture_output=True, timeout=60, check=True)
    assert done.stdout.decode().splitlines() == [wide_key(name) for name in names]
