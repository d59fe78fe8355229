"""The line of a key is that of the real parser, however it is spelt."""

from __future__ import annotations

import pytest

from hpcc.config import toml
from hpcc.config.toml import line_of

TEXT = '''# acme is no table here: [tenants.acme]
about = """
[tenants.acme]
sessions = 1
"""
[tenants.acme]
# images = []
images = [
  "a",  # sessions
  "b"]
identity = {issuer = "i", audience = "a"}

  [tenants."acme".quotas]
  "sessions" = 1

[tenants.globex]
quotas.sessions = 2'''


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("about", 2),
        ("tenants", 6),
        ("tenants.acme", 6),
        ("tenants.acme.images", 8),
        ("tenants.acme.identity", 11),
        ("tenants.acme.quotas", 13),
        ("tenants.acme.quotas.sessions", 14),
        ("tenants.globex.quotas.sessions", 17),
        # What is absent is where its table is.
        ("tenants.acme.parity", 6),
        ("tenants.globex.quotas.farm_execs", 17),
        ("other", 0),
    ],
)
def test_the_first_line_of_what_a_path_leads_to(path: str, line: int, newline: str) -> None:
    assert line_of(TEXT.replace("\n", newline), path.split(".")) == line


def test_a_search_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a = [\n" + "1,\n" * 200 + "]\nb = 1"
    assert line_of(text, ["b"]) == 203
    monkeypatch.setattr(toml, "_MAX_PARSED_CHARS", 10_000)
    assert line_of(text, ["b"]) == 0
    monkeypatch.setattr(toml, "_MAX_PARSED_CHARS", 100)
    assert line_of(text, ["b"]) == 0
