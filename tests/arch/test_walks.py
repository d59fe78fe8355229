"""ARCHITECTURE.md names only symbols, paths and rooms that exist, and names every room."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
QUOTED = re.findall(
    r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.MULTILINE)
)
SYMBOL = re.compile(r"hpcc(?:_testkit)?(?:\.\w+)+:\w+(?:\.\w+)*")
MODULE = re.compile(r"hpcc(?:_testkit)?(?:\.\w+)+")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/|[\w.-]+(?:/[\w.-]+)+|[A-Z]+\.md")
ROOM = re.compile(r"^\| `([\w.]+)` \| (.+) \|$", re.MULTILINE)
WALKS = dict(re.findall(r"^## Walk: (.+?)\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE))


def find_module(dotted: str) -> Path:
    top = ROOT / ("testkit" if dotted.startswith("hpcc_testkit") else "src")
    base = top.joinpath(*dotted.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def names_in(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Yield what a module or class defines; an imported name is not defined there."""
    for node in body:
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name, node
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
            case ast.Assign(targets=targets):
                yield from ((t.id, node) for t in targets if isinstance(t, ast.Name))
            case ast.If(body=then, orelse=other):
                yield from names_in([*then, *other])
            case _:
                pass


def is_defined(symbol: str) -> bool:
    module, _, dotted = symbol.partition(":")
    file = find_module(module)
    if not file.is_file():
        return False
    body = ast.parse(file.read_text()).body
    for name in dotted.split("."):
        node = dict(names_in(body)).get(name)
        if node is None:
            return False
        body = node.body if isinstance(node, ast.ClassDef) else []
    return True


def packages() -> list[str]:
    top = ROOT / "src/hpcc"
    found = (p.parent.relative_to(top).parts for p in top.rglob("__init__.py"))
    return sorted(".".join(parts) for parts in found if parts)


@pytest.mark.parametrize("symbol", sorted({q for q in QUOTED if SYMBOL.fullmatch(q)}))
def test_a_symbol_of_the_page_is_defined_where_the_page_says(symbol: str) -> None:
    assert is_defined(symbol)


@pytest.mark.parametrize(
    "symbol",
    [
        "hpcc.cache.cache:Cache.nothing",
        "hpcc.cache.cache:Nothing",
        "hpcc.cache.nothing:Cache",
        "hpcc.cache.cache:Bypass",  # only imported there
    ],
)
def test_a_symbol_that_is_gone_is_noticed(symbol: str) -> None:
    assert not is_defined(symbol)


@pytest.mark.parametrize("dotted", sorted({q for q in QUOTED if MODULE.fullmatch(q)}))
def test_a_module_of_the_page_exists(dotted: str) -> None:
    assert find_module(dotted).is_file()


def test_each_path_of_the_page_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    paths = {q for q in QUOTED if PATH.fullmatch(q)} | set(links)
    # Isolation labels look like paths.
    paths -= {"firecracker/kvm", "qemu/kvm", "qemu/tcg", "process/runc"}
    assert sorted(p for p in paths if not (ROOT / p).exists()) == []
    assert len(paths) > 20


def test_the_four_walks_are_there_and_each_names_where_the_decision_is() -> None:
    assert list(WALKS) == [
        "where a flag is added",
        "where a hit is decided",
        "where a guest's bytes are parsed",
        "where a tenant's policy is read",
    ]
    for title, body in WALKS.items():
        bold = re.findall(r"\*\*(.+?)\*\*", body, re.DOTALL)
        assert any(SYMBOL.search(text) for text in bold), title
        assert re.search(r"^Tests: `tests/", body, re.MULTILINE), title


def test_every_step_of_a_walk_names_a_symbol_or_a_file() -> None:
    for title, body in WALKS.items():
        steps = re.findall(r"^\d+\. (.+?)(?=^\d+\. |^$)", body, re.DOTALL | re.MULTILINE)
        assert len(steps) >= 5, title
        for step in steps:
            quoted = re.findall(r"`([^`]+)`", step)
            assert any(SYMBOL.fullmatch(q) or PATH.fullmatch(q) for q in quoted), step


def test_each_room_has_one_sentence_and_each_sentence_a_room() -> None:
    rooms = ROOM.findall(PAGE)
    assert sorted(name for name, _ in rooms) == packages()


def test_imports_go_down_the_list_of_rooms() -> None:
    """`.importlinter` defines the layers; the page must list rooms in the same order."""
    place = {f"hpcc.{name}": index for index, (name, _) in enumerate(ROOM.findall(PAGE))}
    graph = grimp.build_graph("hpcc", cache_dir=None)
    upward = set()
    for module in graph.modules:
        here = module if module in place else module.rpartition(".")[0]
        for imported in graph.find_modules_directly_imported_by(module):
            there = imported if imported in place else imported.rpartition(".")[0]
            if here in place and there in place and place[there] < place[here]:
                upward.add((here, there))
    assert upward == set()


def test_no_room_needs_the_word_and() -> None:
    """A room whose job needs "and" should be two rooms."""
    for name, sentence in ROOM.findall(PAGE):
        assert not re.search(r"\band\b", sentence), name
        assert sentence.endswith("."), name
        assert ". " not in sentence, name
        assert len(sentence.split()) <= 20, name
