"""`hpcc doctor` and `hpcc status` report compilers that differ from the image's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.host.host_toolchains import HostToolchain
from hpcc.cache.results.records_read import CompileRecord
from hpcc.cli.base.fallback_line import fallback_line
from hpcc.cli.main import main
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.config.paths import Paths
from hpcc.core import ClientPolicy, Toolchain

GCC = Toolchain(
    names=("gcc",), family="gcc", version="14.2.0", build="Debian 14.2.0-19",
    target="x86_64-linux-gnu", probe=1, headers=(("/usr/include", "a" * 64),),
)  # fmt: skip
FARM = Farm(
    scheduler="farm.acme.example:7443", scheduler_certificate_pem="x", tenant="acme",
    principal="ann", secret="", image="r.example/gcc@sha256:" + "ab" * 32, isolation="qemu/kvm",
)  # fmt: skip


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Paths:
    monkeypatch.setenv("HPCC_DIR", str(tmp_path / "h"))
    monkeypatch.setattr("hpcc.runtime.channel.warden.warden_trouble", lambda _: "")
    for name in ("gcc", "clang"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_bytes(b"")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def ask(compiler: bytes, called: bytes, path: bytes) -> tuple[HostToolchain, frozenset[str]]:
        del compiler, path
        toolchain = GCC if called == b"gcc" else replace(GCC, names=("clang",), family="clang")
        return HostToolchain(called.decode(), toolchain, ""), frozenset()

    monkeypatch.setattr("hpcc.cache.host.host_toolchains.ask_compiler", ask)
    return Paths.from_env({"HPCC_DIR": str(tmp_path / "h")})


def farm(paths: Paths, *image: Toolchain, parity: str = "refuse", is_known: bool = True) -> None:
    paths.state.mkdir(parents=True)
    paths.farm_file.write_text(FARM.to_json())
    session = FarmSession(
        scheduler=FARM.scheduler, tenant=FARM.tenant, image=FARM.image, expires_at=1.0,
        policy=ClientPolicy(fallback="warn", parity=parity),  # type: ignore[arg-type]  # of the test
        compilers=image if is_known else None,
    )  # fmt: skip
    paths.farm_session_file.write_text(session.to_json())


def parity_check(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    main(["doctor", "--json"])
    found: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return next(c for c in found if c["name"] == "parity")


def test_equal_compilers_are_named_with_their_versions(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    farm(paths, GCC)
    check = parity_check(capsys)
    assert check["state"] == "ok"
    assert check["detail"] == (
        "image r.example/gcc@sha256:abababababab, refuse: gcc: exact"
        " (gcc 14.2.0 (Debian 14.2.0-19) for x86_64-linux-gnu); clang: not in the image"
    )


@pytest.mark.parametrize(
    ("parity", "cost"),
    [("refuse", "run here, not on the farm"), ("warn", "objects are the image's compiler's")],
)
def test_a_difference_costs_what_the_policy_says_and_is_mended_by_name(
    paths: Paths, capsys: pytest.CaptureFixture[str], parity: str, cost: str
) -> None:
    farm(paths, replace(GCC, version="12.4.0", build="Debian 12.4.0-5"), parity=parity)
    check = parity_check(capsys)
    assert check["state"] == "degraded"
    assert "gcc: other" in check["detail"]
    assert cost in check["cost"]
    assert "install gcc-12 12.4.0 (Debian 12.4.0-5) here" in check["remedy"]


def test_an_image_without_a_compiler_is_said(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    farm(paths)
    check = parity_check(capsys)
    assert check["state"] == "degraded"
    assert check["detail"].endswith("has no compiler that answers")
    assert check["remedy"]


def test_an_image_that_nobody_asked_is_no_fault(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    farm(paths, is_known=False)
    check = parity_check(capsys)
    assert check["state"] == "ok"
    assert "its compilers are not known yet" in check["detail"]


def test_without_farm_and_image_there_is_nothing_to_compare(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    del paths
    assert parity_check(capsys)["state"] == "ok"


def record(at: float, fallback: str) -> CompileRecord:
    return CompileRecord(
        at=at, outcome="miss.local", reason="", fallback=fallback, output="/a.o", sources=(),
        argv=(), cwd="/", compiler="/usr/bin/gcc", identity="", image="", key="", result="",
        duration_ms=1,
    )  # fmt: skip


def test_one_line_says_how_often_and_why_the_farm_was_passed_over() -> None:
    records = [
        record(100.0, "breaker"),
        record(5000.0, "parity: gcc here is old"),
        record(5001.0, ""),
        record(5002.0, "breaker"),
        record(5003.0, "parity: gcc here is gcc 14"),
    ]
    assert fallback_line(records, 5010.0) == (
        "3 compiles of the last hour fell back to this machine: parity 2, breaker 1."
        " gcc here is gcc 14"
    )
    assert (
        fallback_line(records, 99_999.0) == "no compile of the last hour fell back to this machine"
    )
