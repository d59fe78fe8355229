"""`[trace]` of hpcc.toml: nothing by default, and no address that tells everybody on the network."""

from __future__ import annotations

import pytest

from hpcc.config.settings import parse_settings
from hpcc.core import CallerError


def test_by_default_no_build_leaves_the_machine() -> None:
    trace = parse_settings("").trace
    assert (trace.otlp, trace.names) == ("", False)


def test_a_collector_is_read_with_its_files() -> None:
    trace = parse_settings(
        '[trace]\notlp = "https://otel.example"\notlp_headers_file = "/h"\nnames = true\n'
    ).trace
    assert (trace.otlp, trace.otlp_headers_file, trace.names) == (
        "https://otel.example", "/h", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('otlp = "http://otel.example"', r"hpcc.toml: .*without TLS only loopback"),
        ('otlp = "https://u:p@otel.example"', r"hpcc.toml: .*without a password"),
        ('otlp_headers_file = "h"', "must be an absolute path"),
        ('names = "all"', "must be true or false"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, words: str) -> None:
    with pytest.raises(CallerError, match=words):
        parse_settings(f"[trace]\n{text}\n")
