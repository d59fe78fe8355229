"""Contents of a source, or of the environment, that limit a result to one checkout."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.files import FileMemo
from hpcc.cache.key.share import _environment
from hpcc.cache.results.share_check import SourceCheck

ROOT = b"/home/me/project"
COMPUTED = b"#define H <x.h>\n#include H\n"
# What a macro would put before a name to make a path below the root.
BEGINNING = b'#define BASE "/home/me"\n'


def why_not(directory: Path, *texts: bytes) -> str:
    """Return why files with these texts, all of them old, stay private."""
    memo = FileMemo(lambda: time.time_ns() + 10**11)
    files = []
    for number, text in enumerate(texts):
        path = os.fsencode(directory / f"{number}.h")
        Path(os.fsdecode(path)).write_bytes(text)
        digest = memo.digest(path)
        assert digest is not None
        files.append((path, digest))
    return SourceCheck(memo).why_not_shared(files, ROOT)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ((b"int x;\n",), ""),
        ((COMPUTED,), ""),
        ((BEGINNING,), ""),
        ((COMPUTED + BEGINNING,), "computed-include"),
        ((COMPUTED, BEGINNING), "computed-include"),
        ((BEGINNING, b"int x;\n", COMPUTED), "computed-include"),
        # Another user's directory begins no path below this root.
        ((COMPUTED, b'#define BASE "/home/you"\n'), ""),
        # The first name alone begins too many paths.
        ((COMPUTED, b'#define BASE "/home/"\n'), ""),
        ((b'#include "/home/me/project/x.h"\n',), "root-in-source"),
        ((b'#include "/home/me/../me/project/x.h"\n',), "root-in-source"),
        ((COMPUTED, b'char *root = "/home/me/project";\n'), "root-in-source"),
    ],
)
def test_what_ties_a_source_to_its_checkout(
    tmp_path: Path, texts: tuple[bytes, ...], reason: str
) -> None:
    assert why_not(tmp_path, *texts) == reason


def test_a_file_that_changed_after_the_compile_is_not_judged(tmp_path: Path) -> None:
    memo = FileMemo(lambda: time.time_ns() + 10**11)
    path = os.fsencode(tmp_path / "a.h")
    (tmp_path / "a.h").write_bytes(b"int x;\n")
    check = SourceCheck(memo)
    assert check.why_not_shared([(path, b"another digest".ljust(32))], ROOT) == "input-changed"
    assert check.why_not_shared([(path + b".gone", bytes(32))], ROOT) == "input-changed"


def environment(cwd: Path, **env: bytes) -> str:
    request = CompileRequest(
        argv=(b"cc",),
        compiler=b"/usr/bin/cc",
        cwd=os.fsencode(cwd),
        env={name.encode(): value for name, value in env.items()},
        umask=0o022,
        stderr_is_tty=False,
    )
    return _environment(request, os.fsencode(cwd))


def test_another_spelling_of_the_working_directory_keeps_a_result_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilers record $PWD if it names the working directory, and no prefix map covers that."""
    real, other = tmp_path / "real", tmp_path / "other"
    real.mkdir()
    other.mkdir()
    (tmp_path / "link").symlink_to("real")
    link = os.fsencode(tmp_path / "link")
    assert environment(real, PWD=link) == "directory-spelling"
    assert environment(real, PWD=os.fsencode(real)) == ""
    assert environment(real) == ""
    # Compilers take none of these for the working directory.
    assert environment(other, PWD=link) == ""
    assert environment(real, PWD=link + b"/gone") == ""
    assert environment(real, PWD=b"/a\0b") == ""
    # A relative $PWD, although it leads there from this process.
    monkeypatch.chdir(tmp_path)
    assert environment(real, PWD=b"link") == ""


def test_the_root_in_a_variable_keeps_a_result_private(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    assert environment(tmp_path, CPATH=b"/x") == "environment"
    assert environment(tmp_path, OPTIONS=b"-I" + root) == "environment"
    assert environment(tmp_path, PATH=root + b"/bin", TMPDIR=root, HPCC_X=root) == ""
