"""cl's reports of the files it read: as JSON, and as notes in any language."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc.compilers.msvc.deps import (
    PROBE_FILES,
    learn_show_includes,
    read_show_includes,
    read_source_dependencies,
)
from hpcc.core import CallerError

# The words of Microsoft's language packs, each in the code page of its console.
WORDS = [
    ("Note: including file:", "cp437"),
    ("Hinweis: Einlesen der Datei:", "cp850"),
    ("Remarque : inclusion du fichier :", "cp1252"),
    ("メモ: インクルード ファイル:", "cp932"),
    ("注意: 包含文件: ", "cp936"),
    ("참고: 포함 파일:", "cp949"),
    ("Примечание: включение файла:", "cp866"),
    ("Poznámka: včetně souboru:", "cp1250"),
]


def probe_output(words: str, encoding: str) -> bytes:
    lines = [
        "hpcc_probe.c",
        f"{words} C:\\Users\\me\\hpcc_probe_outer.h",
        f"{words}  C:\\Users\\me\\hpcc_probe_inner.h",
        "",
    ]
    return "\r\n".join(lines).encode(encoding)


@pytest.mark.parametrize(("words", "encoding"), WORDS)
def test_the_words_are_learned_in_each_language(words: str, encoding: str) -> None:
    prefix = learn_show_includes(probe_output(words, encoding))
    assert prefix == words.encode(encoding)
    output = (
        f"x.cpp\r\n{words} C:\\w\\a.h\r\n{words}   C:\\w\\d d\\b.h\r\n"
        f"x.cpp(3): warning C4101\r\n{words} C:\\w\\a.h\r\n"
    ).encode(encoding)
    names, rest = read_show_includes(output, prefix, encoding=encoding)
    assert names == ("C:\\w\\a.h", "C:\\w\\d d\\b.h")
    assert rest == b"x.cpp\r\nx.cpp(3): warning C4101\r\n"


def test_a_name_in_the_code_page_is_read() -> None:
    prefix = "メモ: インクルード ファイル:".encode("cp932")
    output = prefix + " C:\\表\\ソ.h\r\n".encode("cp932")  # second bytes that are a backslash
    assert read_show_includes(output, prefix, encoding="cp932")[0] == ("C:\\表\\ソ.h",)


def test_clang_cl_teaches_its_words(tmp_path: Path) -> None:
    clang = shutil.which("clang-19") or shutil.which("clang")
    assert clang is not None
    program = tmp_path / "clang-cl"
    program.symlink_to(Path(clang).resolve())
    for name, text in PROBE_FILES.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [program, "/nologo", "/c", "-showIncludes", "hpcc_probe.c"],
        cwd=tmp_path, check=True, capture_output=True, timeout=120, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert learn_show_includes(done.stdout) == b"Note: including file:"


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"Note: hpcc_probe_outer.h\nNote: hpcc_probe_inner.h\n",  # no deeper
        b"hpcc_probe_outer.h\n hpcc_probe_inner.h\n",  # no words
        b"N: a\\hpcc_probe_outer.h\nN:  a\\hpcc_probe_inner.h\n" * 2,
        b"N" * 300 + b" hpcc_probe_outer.h\n" + b"N" * 300 + b"  hpcc_probe_inner.h\n",
    ],
)
def test_output_that_teaches_nothing_is_refused(output: bytes) -> None:
    with pytest.raises(CallerError):
        learn_show_includes(output)


def test_a_name_of_another_code_page_is_refused() -> None:
    with pytest.raises(CallerError):
        read_show_includes(b"N: \x81\n", b"N:", encoding="cp932")


def report(**changes: object) -> bytes:
    data: dict[str, object] = {
        "Source": "c:\\w\\x.cpp", "ProvidedModule": "", "Includes": ["c:\\w\\é.h", "c:\\w\\b.h"],
        "ImportedModules": [], "ImportedHeaderUnits": [],
    }  # fmt: skip
    return json.dumps({"Version": "1.2", "Data": data | changes}).encode()


def test_a_report_names_the_source_and_its_headers() -> None:
    expected = ("c:\\w\\x.cpp", "c:\\w\\é.h", "c:\\w\\b.h")
    assert read_source_dependencies(report()) == expected
    assert read_source_dependencies(b"\xef\xbb\xbf" + report()) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, report().replace(b"1.2", b"2.0"), report()[:-1],
        report(Includes="c:\\a.h"), report(Includes=[1]), report(Includes=[""]),
        report(Includes=["a\0b"]), report(Includes=["\ud800.h"]), report(Source=None),
        report(PCH="c:\\x.pch"), report(ProvidedModule="m"), report(ImportedModules=["m"]),
        report(Includes=["a"] * 100_000), b" " * (9 << 20),
        report().replace(b'"Source"', b'"Includes": [], "Source"'),
    ],
)  # fmt: skip
def test_a_hostile_report_is_refused(data: bytes) -> None:
    with pytest.raises(CallerError) as caught:
        read_source_dependencies(data)
    assert caught.value.reason == "msvc-dependencies"
