"""Divides the largest matrices of tests between `./test.sh` and `make nightly`."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

# A row of such a file differs from its neighbours in a flag, a compiler or a spelling. One of so
# many rows runs each time, always the same; the others are for the nightly. Together they take
# half an hour of a worker.
_ONE_OF: Final = MappingProxyType(
    {
        "cache/test_cache_differential.py": 2,
        "cache/test_cache_replay.py": 2,
        "cache/test_gnu_side_outputs.py": 2,
        "cache/test_respelled_headers.py": 2,
        "content/test_content_assembler.py": 2,
        "content/test_content_comments.py": 2,
        "content/test_content_hits.py": 2,
        "content/test_content_quotes.py": 2,
        "grammar/test_comment_objects.py": 2,
        "grammar/test_grammar_tools.py": 2,
        "msvc/test_clang_cl.py": 2,
        "sharing/test_share_flag_sets.py": 2,
        "sharing/test_share_refusals.py": 2,
        "trust/test_trust_scenarios.py": 4,
    }
)
_HERE: Final = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before the items' kinds are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the rows that only the nightly needs."""
    for item in items:
        if not item.path.is_relative_to(_HERE) or not hasattr(item, "callspec"):
            continue
        part = _ONE_OF.get(item.path.relative_to(_HERE).as_posix(), 1)
        if zlib.crc32(item.name.encode()) % part:
            item.add_marker("nightly")
