"""The files for MSBuild and CMake on Windows, as docs/windows.md describes them.

No MSBuild is here, so of its file only the text is checked: that its lines give command lines that
the local cache takes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.msvc.invocation import read_msvc_invocation
from hpcc_testkit.cache.launcher import ROOT

FILES: Final = ROOT / "deploy/windows"
# What MSBuild passes of a debug configuration with the file: "CL task" and the rules in cl.xml.
MSBUILD: Final = (
    "/c /Z7 /nologo /W3 /WX- /diagnostics:column /sdl /Od /D _DEBUG /D _CONSOLE /D _UNICODE /Gm- "
    "/EHsc /RTC1 /MDd /GS /fp:precise /permissive- /Zc:wchar_t /Zc:forScope /Zc:inline /showIncludes "
    "/Fox64\\Debug\\ /Fdx64\\Debug\\vc143.pdb /external:W3 /Gd /TP /FC /errorReport:queue x.cpp"
)  # fmt: skip


def test_msbuilds_file_says_what_the_page_says() -> None:
    tree = ET.parse(FILES / "hpcc.props")
    found = {e.tag.rpartition("}")[2]: (e.text or "").strip() for e in tree.iter()}
    page = (ROOT / "docs/windows.md").read_text()
    for name in ("CLToolExe", "UseMultiToolTask", "TrackFileAccess", "DebugInformationFormat",
                 "MultiProcessorCompilation", "PrecompiledHeader", "ShowIncludes"):  # fmt: skip
        assert found[name]
        assert f"`{name}`" in page, name
    assert found["DebugInformationFormat"] == "OldStyle"  # /Z7
    assert found["CLToolExe"] == "cl.exe"


def test_the_command_line_of_msbuild_is_taken() -> None:
    found = read_msvc_invocation([word.encode() for word in MSBUILD.split()], is_clang=False)
    assert isinstance(found, Invocation), found
    assert found.output == b"x64\\Debug\\x.obj"


def test_cmake_reads_the_presets(tmp_path: Path) -> None:
    shutil.copy(FILES / "CMakePresets.json", tmp_path)
    (tmp_path / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(p C)\n")
    argv = ["cmake", "--list-presets"]
    done = subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, timeout=100)
    presets = json.loads((FILES / "CMakePresets.json").read_text())["configurePresets"]
    for preset in presets:
        assert (f'"{preset["name"]}"'.encode() in done.stdout) is not preset.get("hidden", False)
