"""Packages of this tree, and copies of this machine to install them on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc_testkit.packages.built import SMALL, Builder, built_wheel
from hpcc_testkit.packages.machine import MachineCopy, machine_copy, missing_or_none


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(built_wheel(tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="session")
def small(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """Return a function that builds the packages without libraries, each kind once."""
    made: dict[str, list[Path]] = {}

    def built(kind: str) -> list[Path]:
        if kind not in made:
            made[kind] = builder.build(tmp_path_factory.mktemp(kind), kind, SMALL)
        return made[kind]

    return built


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[MachineCopy]:
    if missing := missing_or_none():
        pytest.skip(missing)
    with machine_copy(tmp_path) as made:
        yield made
