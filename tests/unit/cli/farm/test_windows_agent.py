"""`hpcc windows-agent` writes a whole layer from named files, or an error message and no file."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from hpcc.cli.main import main


def package(path: Path, version: str = "313") -> str:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("python.exe", f"python{version}._pth"):
            archive.writestr(name, b"x")
    path.write_bytes(out.getvalue())
    return hashlib.sha256(out.getvalue()).hexdigest()


def test_the_layer_is_written_and_its_digest_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = package(tmp_path / "p.zip")
    (tmp_path / "s.exe").write_bytes(b"MZ")
    argv = [
        "windows-agent", "--python", str(tmp_path / "p.zip"), "--sha256", digest.upper(),
        "--stub", str(tmp_path / "s.exe"), str(tmp_path / "layer.tar"),
    ]  # fmt: skip
    assert main(argv) == 0
    said = capsys.readouterr().out.strip()
    assert said == "sha256:" + hashlib.sha256((tmp_path / "layer.tar").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        ("digest", "not the one"),
        ("stub", "cannot be read"),
        ("old", "3.12"),
        ("output", "cannot write"),
    ],
)
def test_what_cannot_be_built_is_said_and_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str, word: str
) -> None:
    digest = package(tmp_path / "p.zip", "311" if broken == "old" else "313")
    if broken != "stub":
        (tmp_path / "s.exe").write_bytes(b"MZ")
    output = tmp_path / ("absent/layer.tar" if broken == "output" else "layer.tar")
    argv = [
        "windows-agent", "--python", str(tmp_path / "p.zip"), "--stub", str(tmp_path / "s.exe"),
        "--sha256", "0" * 64 if broken == "digest" else digest, str(output),
    ]  # fmt: skip
    assert main(argv) == 2
    assert word in capsys.readouterr().err
    assert not list(tmp_path.rglob("*layer*"))
