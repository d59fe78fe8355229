"""The daemon follows the farm's latest policy: which compilers may use the farm or fall back."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.host.host_toolchains import RECHECK_SECONDS, HostToolchains, ask_compiler
from hpcc.cache.replay.engine import Outcome
from hpcc.cache.results.records_read import read_records
from hpcc.cli.cache.explain import explain_lines
from hpcc.config.farm_session import FarmSession
from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import ClientPolicy, Fallback, Level, Parity, RemoteFailure, Toolchain, compare
from hpcc.dispatch.remote import DispatcherClient
from hpcc_testkit.cache.compiles import FARM, FakeLauncher, FakeRemote

_ARGV = ("gcc", "-Iinc", "-O2", "-c", "src/main.c", "-o", "out.o")
_FRAME = b"the bytes of a request"
_QUIET_SECONDS = 2.1
OTHER = Toolchain(names=("gcc",), family="gcc", version="7.5.0", target="x86_64-linux-gnu")


def said(
    parity: Parity | None = "refuse",
    fallback: Fallback | None = "warn",
    image: Toolchain | None = OTHER,
    *,
    seconds: float = 3600.0,
) -> FarmSession:
    return FarmSession(
        scheduler=FARM.scheduler,
        tenant=FARM.tenant,
        image=FARM.image,
        expires_at=time.time() + seconds,
        policy=ClientPolicy(fallback=fallback, parity=parity),
        compilers=None if image is None else (image,),
    )


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], remote: FakeRemote) -> Cache:
    return make_cache(remote)


def test_a_compiler_that_is_not_the_images_compiles_here_and_explain_says_why(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache, paths: Paths
) -> None:
    remote.said = said()
    ended = launcher.compile(*_ARGV)
    assert (ended.answer, ended.exit_code) == ("run", 0)
    assert b"hpcc" not in ended.stderr
    assert remote.requests == []
    assert cache.counters()["fallback.parity"] == 1
    (record,) = read_records(str(paths.cache))
    (line,) = [li for li in explain_lines([record]) if "not on farm" in li]
    assert "parity: gcc here is gcc " in line
    assert "gcc 7.5.0 for x86_64-linux-gnu: install gcc-7 7.5.0 here, or" in line


def test_the_images_own_compiler_is_let_out_and_reported(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache, paths: Paths
) -> None:
    here, _ = ask_compiler(b"/usr/bin/gcc", b"gcc", b"/usr/bin:/bin")
    assert here.toolchain is not None
    remote.said = said(image=here.toolchain)
    assert launcher.compile(*_ARGV).answer == "done"
    assert remote.requests[0].toolchain == here.text
    # The name by which `hpcc explain` asks the farm, also after a later hit.
    assert launcher.compile(*_ARGV).answer == "done"
    assert cache.counters()["hit.remote"] == 1
    assert {r.action for r in read_records(str(paths.cache))} == {"0" * 64 + "/0"}
    assert "fallback.parity" not in cache.counters()


@pytest.mark.parametrize("parity", ["warn", "ignore", None])
def test_a_difference_that_is_not_refused_goes_to_the_farm(
    launcher: FakeLauncher,
    remote: FakeRemote,
    cache: Cache,
    caplog: pytest.LogCaptureFixture,
    parity: Parity | None,
) -> None:
    remote.said = said(parity)
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            launcher.compile(*_ARGV[:-1], f"{name}.o")
    assert len(remote.requests) == 2
    assert "fallback.parity" not in cache.counters()
    # Once, by the user's own `warn`, which is stricter than a tenant's `ignore`.
    assert sum("gcc here is" in r.getMessage() for r in caplog.records) == 1


def test_an_image_that_was_not_understood_goes_to_the_farm_and_the_log_says_so_once(
    launcher: FakeLauncher,
    remote: FakeRemote,
    cache: Cache,
    caplog: pytest.LogCaptureFixture,
) -> None:
    remote.said = said("refuse", image=None)
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            launcher.compile(*_ARGV[:-1], f"{name}.o")
    assert len(remote.requests) == 2
    assert "fallback.parity" not in cache.counters()
    (text,) = [r.getMessage() for r in caplog.records if "was not compared" in r.getMessage()]
    assert "its compilers are unknown" in text


def test_where_it_is_ignored_on_both_sides_no_compiler_is_asked(
    make_cache: Callable[..., Cache], launcher: FakeLauncher, remote: FakeRemote
) -> None:
    launcher.handler = make_cache(remote, Settings(remote=RemoteSettings(parity="ignore")))
    remote.said = said("ignore")
    assert launcher.compile(*_ARGV).answer == "done"
    assert remote.requests[0].toolchain == ""


def test_results_of_the_image_are_not_served_where_its_compiler_is_refused(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    remote.said = said("warn")
    assert launcher.compile(*_ARGV).answer == "done"
    assert launcher.compile(*_ARGV).answer == "done"
    assert cache.counters()["hit.remote"] == 1
    remote.said = said("refuse")
    assert launcher.compile(*_ARGV).answer == "run"
    # Nor while it is asked whether that still holds.
    remote.said, remote.failure = said("refuse", seconds=-1.0), RemoteFailure("parity", "it does")
    launcher.compile(*_ARGV)
    assert cache.counters()["hit.remote"] == 1
    assert len(remote.requests) == 2
    remote.failure = None
    remote.said = said("warn")
    assert launcher.compile(*_ARGV).answer == "done"
    assert cache.counters()["hit.remote"] == 2
    assert len(remote.requests) == 2


def test_a_word_of_a_session_that_is_over_is_asked_for_again(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    remote.said = said(seconds=-1.0)
    assert launcher.compile(*_ARGV).answer == "done"
    assert len(remote.requests) == 1
    remote.failure = RemoteFailure("parity", "still another compiler")
    assert launcher.compile(*_ARGV).answer == "run"
    assert cache.counters()["fallback.parity"] == 1
    # This is not a fault of the farm, so the breaker stays closed.
    for _ in range(5):
        launcher.compile(*_ARGV)
    assert "fallback.breaker" not in cache.counters()


@pytest.mark.parametrize(("tenants", "users"), [("never", "quiet"), ("quiet", "never")])
def test_the_stricter_word_forbids_to_fall_back_and_says_whose_it_is(
    make_cache: Callable[..., Cache],
    launcher: FakeLauncher,
    remote: FakeRemote,
    tenants: Fallback,
    users: Fallback,
) -> None:
    launcher.handler = make_cache(remote, Settings(remote=RemoteSettings(fallback=users)))
    remote.said = said("ignore", tenants)
    remote.failure = RemoteFailure("quota", "come back later")
    ended = launcher.compile(*_ARGV)
    assert (ended.answer, ended.exit_code) == ("done", 1)
    where = b"for this tenant" if tenants == "never" else b"in hpcc.toml"
    assert b'`fallback = "never"` ' + where in ended.stderr
    assert not (launcher.cwd / "out.o").exists()


def test_refused_and_forbidden_to_fall_back_ends_the_compile_with_both_reasons(
    launcher: FakeLauncher, remote: FakeRemote, cache: Cache
) -> None:
    remote.said = said("refuse", "never")
    ended = launcher.compile(*_ARGV)
    assert (ended.answer, ended.exit_code) == ("done", 1)
    assert b"(parity): gcc here is gcc" in ended.stderr
    assert b'`fallback = "never"`' in ended.stderr
    assert remote.requests == []
    assert cache.counters()["fallback.parity"] == 1


def test_what_a_farm_said_ends_a_remembered_hit(
    make_cache: Callable[..., Cache], launcher: FakeLauncher, paths: Paths
) -> None:
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text("{}")
    cache = launcher.handler = make_cache(FakeRemote())

    def begin() -> None:
        launcher.handler.begin(launcher.request(_ARGV)._replace(frame=_FRAME), lambda: False)

    def replay() -> int:
        found = cache.replays.find(_FRAME)
        assert found is not None
        ours, theirs = socket.socketpair()
        with ours, theirs:
            return cache.replays.engine.replay(found.prepared, theirs.fileno())

    begin()
    time.sleep(_QUIET_SECONDS)
    begin()
    assert replay() == Outcome.DONE
    paths.farm_session_file.write_text(said().to_json())
    assert replay() == Outcome.CHANGED
    time.sleep(_QUIET_SECONDS)
    begin()
    assert replay() == Outcome.DONE
    paths.farm_session_file.write_text(said("warn").to_json())
    assert replay() == Outcome.CHANGED


class Times:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_a_compiler_is_asked_once_and_again_when_a_header_changed(
    launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    del launcher
    clock, asked = Times(), []
    hosts = HostToolchains(clock)
    header = []

    def fake(*args: object) -> tuple[object, frozenset[str]]:
        asked.append(args)
        return object(), frozenset(header)

    monkeypatch.setattr("hpcc.cache.host.host_toolchains.ask_compiler", fake)
    header.append("/usr/include/stdio.h")
    first = hosts.of(b"/usr/bin/gcc", b"gcc", b"id", b"/usr/bin")
    assert hosts.of(b"/usr/bin/gcc", b"gcc", b"id", b"/usr/bin") is first
    clock.at += RECHECK_SECONDS
    assert hosts.of(b"/usr/bin/gcc", b"gcc", b"id", b"/usr/bin") is first
    assert len(asked) == 1
    monkeypatch.setattr("hpcc.cache.host.host_toolchains._signature", lambda _: (0,))
    clock.at += RECHECK_SECONDS
    hosts.of(b"/usr/bin/gcc", b"gcc", b"id", b"/usr/bin")
    assert len(asked) == 2
    hosts.of(b"/usr/bin/gcc", b"gcc", b"another content", b"/usr/bin")
    assert len(asked) == 3


@pytest.mark.parametrize("name", ["gcc", "g++", "clang", "clang++"])
def test_a_compiler_of_this_machine_equals_itself(name: str) -> None:
    here, files = ask_compiler(f"/usr/bin/{name}".encode(), name.encode(), b"/usr/bin:/bin")
    assert here.toolchain is not None
    assert len(here.toolchain.headers) >= 3
    assert all(f.startswith("/") for f in files)
    again, _ = ask_compiler(f"/usr/bin/{name}".encode(), name.encode(), b"/usr/bin:/bin")
    assert compare(name, here.toolchain, [again.toolchain or OTHER]).level is Level.EXACT


@pytest.mark.parametrize("compiler", ["/usr/bin/true", "/bin/cat", "/nowhere/gcc"])
def test_what_is_no_compiler_is_not_known(compiler: str) -> None:
    here, files = ask_compiler(compiler.encode(), b"gcc", b"/usr/bin:/bin")
    assert (here.toolchain, here.text, files) == (None, "", frozenset())


def test_a_session_of_another_farm_says_nothing(paths: Paths) -> None:
    client = DispatcherClient(paths, Settings())
    paths.state.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text(FARM.to_json())
    assert client.session() is None
    paths.farm_session_file.write_text(said().to_json())
    found = client.session()
    assert found is not None
    assert found.policy.parity == "refuse"
    paths.farm_file.write_text(replace(FARM, tenant="other").to_json())
    assert client.session() is None
