"""How a compile on Windows is started: the same rules on every system that runs the test."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace

import pytest

from hpcc.agent.windows.program import (
    NoProgramError,
    check_line,
    check_request,
    environment,
    find_program,
    read_report,
    status_of,
    stub_arguments,
)
from hpcc.core import CallerError, Digest, ExecLimits, InputFile
from hpcc.runtime.windows.agent import build_agent_layer, build_agent_zip
from hpcc_testkit.guests.guest_contract import request

MACHINE = {"SystemRoot": "C:\\Windows", "SECRET": "x", "Path": "C:\\agent", "TEMP": "C:\\t"}


def variables(*pairs: tuple[str, str]) -> dict[str, str]:
    return environment(request("cl", env=pairs), MACHINE, endpoint="e", temporary="C:\\out")


def test_a_program_gets_the_requests_variables_and_what_windows_needs() -> None:
    made = variables(
        ("Path", "C:\\vc"), ("systemroot", "D:\\W"), ("tz", "CET"), ("VS_Unicode_Output", "8")
    )
    assert made == {
        "Path": "C:\\vc", "systemroot": "D:\\W", "tz": "CET", "VSLANG": "1033", "COMPUTERNAME": "HPCC",
        "USERNAME": "hpcc", "TEMP": "C:\\out", "TMP": "C:\\out", "_MSPDBSRV_ENDPOINT_": "e",
    }  # fmt: skip
    assert variables()["SystemRoot"] == "C:\\Windows"


def test_variables_that_must_be_ours_are_ours() -> None:
    made = variables(("tmp", "C:\\"), ("_mspdbsrv_endpoint_", "theirs"))
    assert [v for n, v in made.items() if n.upper() == "TMP"] == ["C:\\out"]
    assert [v for n, v in made.items() if n.upper() == "_MSPDBSRV_ENDPOINT_"] == ["e"]


def test_one_variable_in_two_spellings_is_refused() -> None:
    with pytest.raises(OSError, match="twice"):
        variables(("Path", "a"), ("PATH", "b"))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("cl", "C:\\vc\\cl.exe"), ("CL.EXE", "C:\\vc\\cl.exe"), ("C:\\vc\\cl", "C:\\vc\\cl.exe"),
        ("C:/vc/cl.exe", "C:\\vc\\cl.exe"), ("bin\\own.exe", "C:\\src\\d\\bin\\own.exe"),
        (".\\own", "C:\\src\\d\\own.exe"), ("..\\..\\vc\\cl", "C:\\vc\\cl.exe"),
        ("own", None), ("cl.bat", None), ("\\\\srv\\s\\cl.exe", None), ("//srv/s/cl.exe", None),
        ("\\\\?\\C:\\vc\\cl.exe", None), ("\\\\.\\C:\\vc\\cl.exe", None), ("C:cl.exe", None),
        ("C:\\vc\\cl.exe:x.exe", None), ("D:cl", None), ("", None),
    ],
)  # fmt: skip
def test_a_program_is_found_by_the_requests_path_alone(name: str, found: str | None) -> None:
    there = {
        "c:\\vc\\cl.exe", "c:\\src\\d\\own.exe", "c:\\src\\d\\bin\\own.exe", "c:\\vc\\cl.bat",
        "\\\\srv\\s\\cl.exe", "c:\\src\\d\\c:cl.exe", "c:\\vc\\cl.exe:x.exe", "\\\\evil\\e\\own.exe",
    }  # fmt: skip
    path = {"path": '\\\\evil\\e;"C:\\vc";;relative'}

    def find() -> str:
        return find_program(name, path, "C:\\src\\d", lambda p: p.lower() in there)

    if found is None:
        with pytest.raises(NoProgramError):
            find()
    else:
        assert find().lower() == found.lower()


def test_names_that_windows_cannot_have_are_refused_before_anything_is_written() -> None:
    one, two = Digest.of(b"1"), Digest.of(b"2")

    def chosen(*paths: tuple[str, Digest]) -> frozenset[str]:
        inputs = tuple(InputFile(p, d) for p, d in paths)
        return check_request(replace(request("cl"), inputs=inputs), "C:\\src")

    assert chosen(("A.h", one), ("a.h", one), ("b", two)) == {"A.h", "b"}
    for bad in (
        (("A.h", one), ("a.h", two)),
        (("con", one),),
        (("a:b", one),),
        (("a.", one),),
        (("a\\b", one),),
    ):
        with pytest.raises(OSError, match=r".+"):
            chosen(*bad)
    for field in ("outputs", "output_directories"):
        with pytest.raises(OSError, match=r"path|units"):
            check_request(replace(request("cl"), **{field: ("d/" + "x" * 253,)}), "C:\\src")
    with pytest.raises(OSError, match=r"reserved|nul"):
        check_request(replace(request("cl"), cwd="nul"), "C:\\src")


def test_the_stub_is_told_every_limit() -> None:
    limits = ExecLimits(wall_seconds=0.0001, memory_bytes=7, pids=3)
    words = stub_arguments(request("cl", "/c", "--", limits=limits), "C:\\cl.exe", "R")
    assert words == [
        "run", "--restricted", "medium", "--memory", "7", "--processes", "3", "--timeout-ms", "1",
        "--report", "R", "--", "C:\\cl.exe", "/c", "--",
    ]  # fmt: skip
    check_line(words, "x" * 32_766)
    with pytest.raises(OSError, match="response file"):
        check_line(words, "x" * 32_765 + "\U0001f600")


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        (b"done 2 10 20 30\n", 2, ""), (b"done 3221225477 1 1 1\n", -11, ""), (b"done 70000 1 1 1", 255, ""),
        (b"deadline 124 1 1 1\n", 124, "deadline"), (b"memory 2 1 1 1\n", 2, "memory"),
        (b"memory 0 1 1 1\n", 1, "memory"), (b"spawn 2\n", 127, "no-such-program"),
        (b"spawn 193\n", 127, "no-such-program"), (b"spawn 5\n", 125, "agent-error"),
        (b"", 125, "agent-error"), (b"done", 125, "agent-error"), (b"done 0 -1 0 0", 125, "agent-error"),
        (b"done x 1 1 1", 125, "agent-error"), (b"spawn \xff", 125, "agent-error"),
    ],
)  # fmt: skip
def test_a_jobs_end_is_what_its_report_says(text: bytes, status: int, reason: str) -> None:
    ending = read_report(text, wall_seconds=1.0, started_at=2.0)
    assert (ending.status, ending.reason) == (status, reason)
    if text == b"done 2 10 20 30\n":
        assert (ending.user_seconds, ending.system_seconds) == pytest.approx((1e-6, 2e-6))
        assert (ending.max_rss_bytes, ending.wall_seconds, ending.started_at) == (30, 1.0, 2.0)


def test_an_exit_code_is_one_that_a_result_has() -> None:
    assert [status_of(c) for c in (0, 255, 256, 0xFFFFFFFF, 0xC00000FD)] == [0, 255, 255, 255, -11]


def test_the_agents_program_is_the_same_bytes_each_time_and_python_alone() -> None:
    data = build_agent_zip()
    assert build_agent_zip() == data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        names = [i.filename for i in infos]
        assert {i.compress_type for i in infos} == {zipfile.ZIP_STORED}
    assert names == sorted(set(names))
    assert all(name.endswith(".py") for name in names)
    assert {"__main__.py", "hpcc/agent/windows/main.py", "hpcc/core/__init__.py", "google/__init__.py",
            "grpclib/server.py", "google/protobuf/message.py"} <= set(names)  # fmt: skip
    assert not [n for n in names if n.startswith(("hpcc/runtime", "hpcc_testkit", "grpc/"))]


def test_a_layer_of_the_whole_agent_wants_a_python_with_hyperv_sockets() -> None:
    def package(version: str) -> tuple[bytes, str]:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in ("python.exe", f"python{version}._pth"):
                archive.writestr(name, b"x")
        return out.getvalue(), hashlib.sha256(out.getvalue()).hexdigest()

    layer = build_agent_layer(b"MZ", *package("312"))
    assert layer == build_agent_layer(b"MZ", *package("312"))
    assert b"Files/.hpcc/app.pyz" in layer.tar
    with pytest.raises(CallerError) as caught:
        build_agent_layer(b"MZ", *package("311"))
    assert caught.value.reason == "python-version"
