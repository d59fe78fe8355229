"""What a scheduler refuses before it serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.base.scale import PATH, ScaleBook
from hpcc.scheduler.serve import _pages
from hpcc_testkit.services.idp_tokens import FixedClock


def pages_of(file: str) -> str:
    """Return the token that the page asks for."""
    config = SchedulerConfig(
        keys=Path("/k"), state=Path("/s"), tenants="/t", scale_token_file=file
    )  # fmt: skip
    book = ScaleBook(
        (), members=list, is_store_up=lambda: True, lease_seconds=1.0, clock=FixedClock()
    )
    return _pages(config, book)[PATH].token


def test_a_token_for_the_demand_is_private_and_long(tmp_path: Path) -> None:
    assert pages_of("") == ""
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text("t" * 32 + "\n")
    assert pages_of(str(file)) == "t" * 32
    file.write_text("t" * 31 + "\n")
    with pytest.raises(CallerError, match="at least 32 characters"):
        pages_of(str(file))
    file.write_text("t" * 40)
    file.chmod(0o644)
    with pytest.raises(CallerError):
        pages_of(str(file))
    with pytest.raises(CallerError):
        pages_of(str(tmp_path / "none"))
    with pytest.raises(CallerError, match="absolute"):
        pages_of("token")
