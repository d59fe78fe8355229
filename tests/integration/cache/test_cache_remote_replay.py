"""Hits on a farm's results become replays, like hits on results of the local compiler."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.cache import Cache
from hpcc.cache.replay.engine import Outcome
from hpcc.config.paths import Paths
from hpcc.wire import launcher as wire
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, run_bare

_ARGV = ("gcc", "-Iearly", "-Iinc", "-O2", "-MD", "-c", "src/main.c", "-o", "out.o")
_FRAME = b"the bytes of a request"
# Beyond the window in which a stat cannot tell a change.
_QUIET_SECONDS = 2.1


@pytest.fixture
def cache(make_cache: Callable[..., Cache], paths: Paths) -> Cache:
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text("{}")  # FakeRemote has the farm; only the file's state counts here
    return make_cache(FakeRemote())


def begin(launcher: FakeLauncher) -> None:
    request: CompileRequest = launcher.request(_ARGV)._replace(frame=_FRAME)
    launcher.handler.begin(request, lambda: False)


def replay(cache: Cache) -> tuple[int, bytes]:
    """Replay the remembered hit; return -1 if there is none."""
    found = cache.replays.find(_FRAME)
    if found is None:
        return -1, b""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outcome = cache.replays.engine.replay(found.prepared, theirs.fileno())
        return outcome, ours.recv(4096) if outcome == Outcome.DONE else b""


@pytest.fixture
def settled(launcher: FakeLauncher) -> FakeLauncher:
    """Return a compile that the farm ran, whose inputs are so old that their stats suffice."""
    begin(launcher)
    time.sleep(_QUIET_SECONDS)
    begin(launcher)
    return launcher


def test_a_farm_hit_is_replayed_with_the_same_bytes(settled: FakeLauncher, cache: Cache) -> None:
    data = (settled.cwd / "out.o").read_bytes()
    (settled.cwd / "out.o").unlink()
    outcome, answer = replay(cache)
    assert outcome == Outcome.DONE
    assert wire.parse_header(answer)[0] == wire.DONE
    assert (settled.cwd / "out.o").read_bytes() == data
    run_bare(_ARGV, cwd=settled.cwd)
    assert (settled.cwd / "out.o").read_bytes() == data


@pytest.mark.parametrize("what", ["farm", "no-farm", "marker", "header"])
def test_a_farm_hit_is_not_replayed_when_its_ground_changed(
    settled: FakeLauncher, cache: Cache, paths: Paths, what: str
) -> None:
    assert replay(cache)[0] == Outcome.DONE
    match what:
        case "farm":
            paths.farm_file.write_text("{ }")
        case "no-farm":
            paths.farm_file.unlink()
        case "marker":
            (settled.cwd / ".hpcc").touch()
        case _:
            (settled.cwd / "inc/conf.h").write_text("#define CONF 8\n")
    assert replay(cache)[0] == Outcome.CHANGED


def test_a_farm_of_just_now_is_not_remembered(
    launcher: FakeLauncher, cache: Cache, paths: Paths
) -> None:
    time.sleep(_QUIET_SECONDS)
    # On a busy machine it may be old before the second compile begins.
    answers = []
    for number in range(5):
        paths.farm_file.write_text("{}" + " " * number)
        begin(launcher)
        begin(launcher)
        answers.append(replay(cache))
        if answers[-1] == (-1, b""):
            break
    assert answers[-1] == (-1, b"")
