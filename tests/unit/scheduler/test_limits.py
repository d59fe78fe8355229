"""How many connections the scheduler requests from the operating system."""

from __future__ import annotations

import resource

import pytest

from hpcc.scheduler.limits import WANTED_FILES, raise_descriptor_limit

Limits = tuple[int, int]


def raised(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> tuple[int, list[Limits]]:
    asked: list[Limits] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: asked.append(new))
    return raise_descriptor_limit(), asked


def test_the_soft_limit_is_raised_to_the_hard_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert raised(monkeypatch, (1024, 1 << 20)) == (1 << 20, [(1 << 20, 1 << 20)])
    assert raised(monkeypatch, (1024, resource.RLIM_INFINITY)) == (
        WANTED_FILES,
        [(WANTED_FILES, resource.RLIM_INFINITY)],
    )
    assert raised(monkeypatch, (1 << 20, 1 << 20)) == (1 << 20, [])
    assert caplog.text == ""


def test_a_hard_limit_that_is_too_low_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert raised(monkeypatch, (1024, 4096)) == (4096, [(4096, 4096)])
    assert "LimitNOFILE" in caplog.text
