"""What the one farm cache decides, seen from a Windows client; the real clang-cl is its compiler."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hpcc.cache.base.api import Done, Exec
from hpcc.cache.base.counters import Counters
from hpcc.cache.farm import BREAKER_FAILURES, BREAKER_SECONDS, REFUSAL_SECONDS
from hpcc.cache.remote.cl_plan import ClCompile
from hpcc.config.settings import RemoteSettings
from hpcc.core import Fallback, Isolation, RemoteFailure, RemoteOutput, RemoteResult
from hpcc_testkit.cache.compiles import FakeRemote
from hpcc_testkit.windows.cl_drive import ARGV, SOURCE, Drive, checkout, client_of, request_in

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def drive(programs: Path) -> Drive:
    return Drive(programs / "clang-cl")


def refuse(path: str, data: bytes) -> None:
    raise OSError(f"no room for {len(data)} bytes at {path}")


class Refusing(NamedTuple):
    begin: Callable[[], Done | Exec | None]
    remote: FakeRemote
    counters: Counters
    now: list[float]


def refusing(drive: Drive, tmp_path: Path, fallback: Fallback = "warn") -> Refusing:
    root = checkout(tmp_path / "p")
    compile_ = ClCompile(request_in(root, *ARGV), root)
    remote, now = FakeRemote(), [0.0]
    counters = Counters(str(tmp_path / "counters"), now=lambda: 0.0)
    settings = RemoteSettings(fallback=fallback)
    client = client_of(remote, drive, counters, settings, lambda: now[0])
    return Refusing(lambda: client.begin(compile_, lambda: False), remote, counters, now)


def answer_of(exit_code: int = 0, out: bytes = b"", **outputs: bytes) -> RemoteResult:
    return RemoteResult(
        exit_code=exit_code, stdout=out, stderr=b"",
        outputs=tuple(RemoteOutput(f"{n}.obj", d, is_executable=False) for n, d in outputs.items()),
        is_cached=False, isolation=Isolation.LOCAL_NONE, action="0" * 64 + "/0",
    )  # fmt: skip


def test_a_farm_that_fails_is_not_asked_for_a_while(tmp_path: Path, drive: Drive) -> None:
    client = refusing(drive, tmp_path)
    client.remote.failure = RemoteFailure("unavailable", "no farm there")
    answers = [client.begin() for _ in range(BREAKER_FAILURES + 2)]
    assert answers == [Exec("unavailable")] * BREAKER_FAILURES + [Exec("breaker")] * 2
    assert len(client.remote.requests) == BREAKER_FAILURES
    client.now[0] += BREAKER_SECONDS
    assert client.begin() == Exec("unavailable")


def test_a_failure_of_one_compile_does_not_stop_the_others(tmp_path: Path, drive: Drive) -> None:
    client = refusing(drive, tmp_path)
    client.remote.failure = RemoteFailure("quarantined", "it killed guests")
    answers = {client.begin() for _ in range(BREAKER_FAILURES + 2)}
    assert answers == {Exec("quarantined")}


def test_a_refused_compile_is_tried_again_later(
    tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = refusing(drive, tmp_path)
    client.remote.failure = RemoteFailure("unavailable", "no farm there")
    source = tmp_path / "p/x.c"
    source.write_text("#define H <y.h>\n#if __has_include(H)\n#endif\n")
    assert client.begin() == Exec("has-include")
    source.write_text(SOURCE)
    with monkeypatch.context() as patch:
        patch.setattr(drive, "run", None)  # the compiler is not asked
        assert client.begin() == Exec("has-include")
    client.now[0] += REFUSAL_SECONDS
    assert client.begin() == Exec("unavailable")
    assert client.counters.snapshot()["fallback.has-include"] == 2


def test_sources_that_do_not_compile_are_tried_again_at_once(tmp_path: Path, drive: Drive) -> None:
    client = refusing(drive, tmp_path)
    client.remote.failure = RemoteFailure("unavailable", "no farm there")
    (tmp_path / "p/x.c").write_text("#error no\n")
    assert client.begin() == Exec("dependencies-failed")
    (tmp_path / "p/x.c").write_text(SOURCE)
    assert client.begin() == Exec("unavailable")


@pytest.mark.parametrize("fallback", ["warn", "never"])
def test_a_compile_that_fails_in_the_guest_is_decided_here_if_that_is_allowed(
    tmp_path: Path, drive: Drive, fallback: Fallback
) -> None:
    client = refusing(drive, tmp_path, fallback)
    client.remote.compile = lambda *_: answer_of(2, b"C:\\src\\x.c(1): no")
    root = "Z:" + str(tmp_path / "p").replace("/", "\\")
    failed = Done(2, f"{root}\\x.c(1): no".encode(), b"")
    assert client.begin() == (Exec("exit-code") if fallback == "warn" else failed)
    name = "fallback.exit-code" if fallback == "warn" else "miss.failed"
    assert client.counters.snapshot()[name] == 1


def test_a_result_that_cannot_be_placed_costs_no_build(tmp_path: Path, drive: Drive) -> None:
    client = refusing(drive, tmp_path)
    client.remote.compile = lambda *_: answer_of()
    assert client.begin() == Exec("bad-result")
    client.remote.compile = lambda *_: answer_of(X=b"object")
    drive.write = refuse
    client.now[0] += 1
    # The answers about the compiler are remembered, so only the object is written.
    assert client.begin() == Exec("output-not-ours")
    assert "miss.remote.executed" not in client.counters.snapshot()


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("hpcc.cache.farm", r"cache\.(results|inputs|host|remote\.(plan|cl_\w+))|compilers\.msvc"),
        ("hpcc.cache.cache", r"cache\.remote\.(cl|windows)_\w+|compilers\.msvc"),
        (
            "hpcc.daemon.windows_process",
            r"cache\.(cache|local|several|content|links|signed|key\.prepare|host\.identity"
            r"|inputs\.closure|results\.hits|remote\.plan)",
        ),
    ],
)
def test_a_client_loads_no_module_of_the_other(module: str, others: str) -> None:
    text = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True, text=True)
    assert "hpcc.cache.farm" in done.stdout.split()
    assert re.findall(rf"^hpcc\.(?:{others})\b.*$", done.stdout, re.MULTILINE) == []
