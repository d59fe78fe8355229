"""docs/spec/audit.md lists exactly the security events that the product emits."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from hpcc.audit.syslog_message import MAX_NAME_CHARS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [p for p in (ROOT / "src/hpcc").rglob("*.py") if "testing" not in p.parts]
PAGE = (ROOT / "docs/spec/audit.md").read_text()
# Calls that name an event, and the place of the name among their arguments.
EMITTERS = {
    "event": 0,
    "refusal": 0,
    "_record": 0,
    "_found": 0,
    "_event": 0,
    "SecurityEvent": 0,
    "_forget": 1,
    "worker_refused": 0,
}


def listed() -> set[str]:
    section = PAGE.partition("### Security events")[2].partition("\n## Sinks")[0]
    return set(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE))


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def constants(tree: ast.Module) -> dict[str, ast.expr]:
    return {
        node.target.id: node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
    }


def names(node: ast.expr, known: dict[str, ast.expr]) -> Iterator[str]:
    """Yield the expression's possible values as regular expressions; nothing for a variable."""
    match node:
        case ast.Name(id=name) if name in known:
            yield from names(known[name], {})
        case ast.Constant(value=str(text)):
            yield re.escape(text)
        case ast.JoinedStr(values=parts):
            yield "".join(
                re.escape(p.value) if isinstance(p, ast.Constant) else "[a-z-]+" for p in parts
            )
        case ast.IfExp(body=one, orelse=other):
            yield from names(one, known)
            yield from names(other, known)


def emitted() -> set[str]:
    found = set()
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or called(node) not in EMITTERS:
                continue
            at = EMITTERS[called(node)]
            named = [k.value for k in node.keywords if k.arg == "name"]
            for value in [*node.args[at : at + 1], *named]:
                found |= set(names(value, constants(tree)))
    return found


def test_each_event_that_is_emitted_is_listed_and_none_else() -> None:
    patterns, known = emitted(), listed()
    assert len(known) > 8
    assert [p for p in sorted(patterns) if not any(re.fullmatch(p, n) for n in known)] == []
    assert [n for n in sorted(known) if not any(re.fullmatch(p, n) for p in patterns)] == []


def test_each_event_that_the_security_page_names_is_listed() -> None:
    page = (ROOT / "docs/security.md").read_text()
    columns = re.findall(r"\| ([^|]*) \|$", page, re.MULTILINE)
    events = {n for column in columns for n in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", column)}
    assert events <= listed()


def test_each_row_of_the_security_page_names_a_test() -> None:
    page = (ROOT / "docs/security.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    bare = [r[:60] for r in rows if not r.startswith("| attack ") and "`test_" not in r]
    assert len(rows) > 50
    assert bare == []


def test_each_name_fits_into_a_message_of_syslog() -> None:
    assert [name for name in listed() if len(name) > MAX_NAME_CHARS] == []
