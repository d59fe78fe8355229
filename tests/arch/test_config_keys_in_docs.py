"""The operators' pages document every key of every config file."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from hpcc.config.settings import Settings
from hpcc.gateway.config import GatewayConfig
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.worker.base.config import WorkerConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "\n".join((DOCS / name).read_text() for name in ("operate.md", "windows.md"))
# Written once in a table with their prefix: `audit_s3_endpoint`, `_bucket`, …
WORDS = {*re.findall(r"[a-z][a-z0-9_]*", PAGE), *re.findall(r"audit_s3\w*|_[a-z_]+", PAGE)}


@pytest.mark.parametrize("kind", [GatewayConfig, SchedulerConfig, WorkerConfig])
def test_each_key_of_a_services_config_file_is_explained(kind: type) -> None:
    keys = [f.name for f in fields(kind)]
    assert [k for k in keys if k not in WORDS and k.removeprefix("audit_s3") not in WORDS] == []


def _keys(kind: type, prefix: str = "") -> list[str]:
    """Return the names of all settings; a section in a section has two dots."""
    found: list[str] = []
    for name, inner in get_type_hints(kind).items():
        found += _keys(inner, f"{prefix}{name}.") if is_dataclass(inner) else [prefix + name]
    return found


def test_each_setting_is_in_the_table() -> None:
    keys = _keys(Settings)
    assert "cache.remote.url" in keys
    assert [k for k in keys if f"`{k}`" not in PAGE] == []
