"""The Windows self-test: its report, its skips, and each check that can run on Linux."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from hpcc.cli.main import main
from hpcc.ports import SystemClock
from hpcc.runtime.windows import selftest
from hpcc.runtime.windows.selftest import SelfTestSettings
from hpcc.runtime.windows.selftest import report as windows_report
from hpcc.runtime.windows.selftest import run_checks as run_windows_checks

ROOT = Path(__file__).resolve().parents[4]


def settings(**changes: Any) -> SelfTestSettings:
    return SelfTestSettings(
        **({"containerd": r"\\.\pipe\none", "clock": SystemClock(), "is_windows": True} | changes)
    )


async def outcome(name: str, **changes: Any) -> tuple[str, str]:
    check = next(c for c in selftest.CHECKS if c.name == name)
    result = await selftest._result(check, settings(**changes))
    return result.outcome, result.reason


def program(path: Path, body: str) -> str:
    path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(body))
    path.chmod(0o755)
    return str(path)


async def test_elsewhere_every_check_is_skipped_with_a_reason() -> None:
    results = await run_windows_checks(settings(is_windows=False))
    assert {r.outcome for r in results} == {"skip"}
    assert all(r.reason for r in results)


def test_the_command_runs_elsewhere_and_writes_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.json"
    assert main(["selftest", "windows", "--json", str(target)]) == 0
    report = json.loads(target.read_text())
    assert report["format"] == 1
    assert [r["name"] for r in report["results"]] == [c.name for c in selftest.CHECKS]
    assert {r["outcome"] for r in report["results"]} == {"skip"}
    assert f"{len(selftest.CHECKS)} skipped" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    assert main(["selftest", "windows", "--json", str(tmp_path / "none" / "r")]) == 2


def test_each_sentence_is_in_the_page() -> None:
    page = re.sub(r"\s+", " ", (ROOT / "docs/windows.md").read_text())
    for check in selftest.CHECKS:
        assert check.sentence in page, check.name
    names = [check.name for check in selftest.CHECKS]
    assert len(set(names)) == len(names)
    for name in names:
        assert f"`{name}`" in page


async def test_no_check_passes_where_there_is_nothing_to_check() -> None:
    """On a "Windows" without any feature, every check fails or is skipped."""
    results = await run_windows_checks(settings(compiler="hpcc-none-such-cl"))
    assert "pass" not in {r.outcome for r in results}
    assert windows_report(results, "0")["hpcc"] == "0"


async def test_a_check_that_fails_in_an_unforeseen_place_says_so() -> None:
    said, reason = await outcome("hcs-rights")
    assert said == "fail"
    assert "not Windows" in reason


async def test_the_layer_is_not_imported_without_a_parent() -> None:
    said, reason = await outcome("layer-import")
    assert said == "skip"
    assert "--parent" in reason


EQUAL = """
    import pathlib, sys
    target = next(a[3:] for a in sys.argv if a.startswith("-Fo"))
    pathlib.Path(target).write_bytes(b"object" {extra})
"""


@pytest.mark.parametrize(
    ("extra", "expected"), [("", "pass"), ("+ str(pathlib.Path.cwd()).encode()", "fail")]
)
@pytest.mark.parametrize("name", ["cl-deterministic", "cl-object-name"])
async def test_objects_that_tell_of_their_directory_are_no_pass(
    tmp_path: Path, name: str, extra: str, expected: str
) -> None:
    compiler = program(tmp_path / "cl", EQUAL.format(extra=extra))
    assert (await outcome(name, compiler=compiler))[0] == expected


async def test_a_compiler_that_refuses_the_flags_is_no_pass(tmp_path: Path) -> None:
    compiler = program(tmp_path / "cl", "import sys; sys.exit('D8043')")
    said, reason = await outcome("cl-deterministic", compiler=compiler)
    assert said == "fail"
    assert "D8043" in reason


STUB = """
    import pathlib, sys
    if {writes}: pathlib.Path("report").write_text("{word} 124 0 0 0")
    sys.exit({code})
"""


@pytest.mark.parametrize(
    ("writes", "word", "code", "expected"),
    [
        (True, "deadline", 124, "pass"), (True, "done", 124, "fail"), (True, "deadline", 0, "fail"),
        (False, "", 124, "fail"),
    ],
)  # fmt: skip
async def test_a_job_that_did_not_end_at_its_deadline_is_no_pass(
    tmp_path: Path, writes: bool, word: str, code: int, expected: str
) -> None:
    stub = program(tmp_path / "stub", STUB.format(writes=writes, word=word, code=code))
    assert (await outcome("job-objects", stub=(stub,)))[0] == expected


async def test_without_a_stub_or_a_compiler_the_checks_are_skipped() -> None:
    assert (await outcome("job-objects"))[0] == "skip"
    assert (await outcome("cl-object-name", compiler="hpcc-none-such-cl"))[0] == "skip"


def test_the_command_needs_nothing_that_windows_lacks() -> None:
    """Imported as on Windows: sys.platform is win32, and POSIX modules are missing."""
    script = textwrap.dedent("""
        import sys, asyncio, ctypes, datetime, json, platform, shutil, subprocess, tempfile
        import pathlib, multiprocessing, ssl, socket, logging, uuid, argparse, http.client
        import collections.abc, grpclib.client, grpclib.server, google.protobuf.any_pb2
        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name in {"fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog"}:
                    raise ModuleNotFoundError(name)
        for name in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog"):
            sys.modules.pop(name, None)
        sys.meta_path.insert(0, Missing())
        # What only Windows has, and is there at import.
        for name, there in {"msvcrt": (), "asyncio.windows_utils": ("PipeHandle", "pipe")}.items():
            sys.modules[name] = type(sys)(name)
            vars(sys.modules[name]).update(dict.fromkeys(there))
        sys.platform = "win32"
        import hpcc.runtime.registry.windows_pick
        from hpcc.cli.main import build_parser
        sys.platform = "linux"
        text = build_parser().format_help()
        assert "selftest" in text and "verify-evidence" not in text, text
        from hpcc.cli.main import main
        sys.exit(main(["selftest", "windows"]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stdout


@pytest.mark.parametrize(
    ("error", "expected"),
    [(FileNotFoundError(2, "no such pipe"), "skip"), (PermissionError(5, "denied"), "fail")],
)
@pytest.mark.parametrize("name", ["containerd-pipe", "containerd-version", "layer-import"])
async def test_a_containerd_that_is_not_there_is_a_skip_and_one_that_refuses_is_none(
    monkeypatch: pytest.MonkeyPatch, name: str, error: OSError, expected: str
) -> None:
    async def create(*_: Any) -> Any:
        raise error

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_pipe_connection", create, raising=False)
    said, reason = await outcome(name, parent="sha256:" + "0" * 64)
    assert said == expected, reason


async def test_what_a_compiler_says_can_be_shown_on_any_console(tmp_path: Path) -> None:
    compiler = program(tmp_path / "cl", "import sys; sys.exit('\\x1b[31mungültig \\u202e')")
    said, reason = await outcome("cl-deterministic", compiler=compiler)
    assert said == "fail"
    assert "ung?ltig" in reason
    assert reason.isascii()
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("error", "expected"), [(OSError(10047, "no family"), "skip"), (OSError(5, "no"), "fail")]
)
async def test_a_host_without_the_family_is_a_skip(
    monkeypatch: pytest.MonkeyPatch, error: OSError, expected: str
) -> None:
    def refuse() -> Any:
        raise error

    monkeypatch.setattr(selftest, "hyperv_socket", refuse)
    assert (await outcome("hyperv-family"))[0] == expected


async def test_a_family_that_is_there_is_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "hyperv_socket", socket.socket)
    assert (await outcome("hyperv-family"))[0] == "pass"
