"""The verdict on two compilers is remembered only while everything it depends on is the same."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from hpcc.cache.host.host_toolchains import HostToolchain, HostToolchains
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.client import ParityAnswer
from hpcc.cache.remote.host_parity import HostParity
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.core import ClientPolicy, Parity, Toolchain

_GCC = Toolchain(
    names=("gcc",), family="gcc", version="14.2.0", target="x86_64-linux-gnu", probe=1,
    headers=(("/usr/include", "ab" * 32),),
)  # fmt: skip
_OTHER = replace(_GCC, version="12.2.0")
_FARM = Farm(
    scheduler="localhost:1",
    scheduler_certificate_pem="",
    tenant="acme",
    principal="ann",
    secret="s",
    image="test/gcc@sha256:" + "ab" * 32,
    isolation="local/none",
)
_COMPILE = cast(
    "Prepared",
    SimpleNamespace(
        request=SimpleNamespace(argv=(b"gcc",), compiler=b"/usr/bin/gcc", env={}),
        identity=SimpleNamespace(digest=b"i"),
        family=SimpleNamespace(analyser=None),
    ),
)


def _session(compiler: Toolchain) -> FarmSession:
    return FarmSession(
        scheduler="localhost:1",
        tenant="acme",
        image=_FARM.image,
        expires_at=100.0,
        policy=ClientPolicy(),
        compilers=(compiler,),
    )


class _Hosts:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found = HostToolchain("gcc", _GCC, "gcc 14")
        monkeypatch.setattr(HostToolchains, "of", lambda *_, **_more: self.found)
        self._now = [50.0]
        self._parity = HostParity(lambda: self._now[0], lambda: 0.0)

    def ask(
        self, session: FarmSession | None, parity: Parity = "refuse", *, at: float = 50.0
    ) -> ParityAnswer:
        self._now[0] = at
        return self._parity.parity(_COMPILE, _FARM, session, parity, lambda: False)


def test_another_session_another_setting_or_another_compiler_gets_another_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = _Hosts(monkeypatch)
    same, other = _session(_GCC), _session(_OTHER)
    assert hosts.ask(same) == hosts.ask(same) == ParityAnswer("", "gcc 14", True, True)
    assert hosts.ask(other).refusal
    assert not hosts.ask(other, "warn").refusal
    assert not hosts.ask(None).is_exact
    hosts.found = HostToolchain("gcc", _OTHER, "gcc 12")
    assert hosts.ask(same).refusal
    assert hosts.ask(other) == ParityAnswer("", "gcc 12", True, True)


def test_a_remembered_verdict_ends_with_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = _Hosts(monkeypatch)
    session = _session(_OTHER)
    assert hosts.ask(session).refusal
    assert not hosts.ask(session, at=100.0).refusal
    assert not hosts.ask(session, at=100.0).is_exact
