"""docs/reasons.md lists exactly the reasons that the cache counts."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.msvc.flags import MSVC_FLAGS
from hpcc.compilers.scan.scan import HAZARD_REASONS
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.closure import ClosureReason
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.private import PrivateReason
from hpcc.core.reasons.reason import PAGE, Reason
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.runtime.assets.agent_files import own_files

_ROOT = Path(__file__).resolve().parents[2]
_KINDS: tuple[type[Reason], ...] = (
    BypassReason,
    UncacheableReason,
    FallbackReason,
    PrivateReason,
    ClosureReason,
)
_WORD = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
# Where a word stands as the first argument. Some calls take words of two kinds: what cannot be kept
# is not sent, and a file that has a hazard may make the compiler be asked.
_CALLS: dict[str, tuple[type[Reason], ...]] = {
    "Bypass": (BypassReason,),
    "left": (BypassReason,),
    "UncacheableError": (UncacheableReason,),
    "NotPortableError": (FallbackReason, UncacheableReason),
    "RemoteFailure": (FallbackReason,),
    "fall_back": (FallbackReason,),
    "MarkerError": (PrivateReason,),
    "UnscannableError": (ClosureReason, UncacheableReason),
}


@functools.cache
def _trees() -> tuple[ast.Module, ...]:
    """Parse the product's modules, without the enums and the command line."""
    source = _ROOT / "src/hpcc"
    left_out = ("core/reasons", "cli", "_proto")
    return tuple(
        ast.parse(path.read_text())
        for path in sorted(source.rglob("*.py"))
        if not any(path.is_relative_to(source / name) for name in left_out)
    )


def _nodes() -> Iterator[ast.AST]:
    return (node for tree in _trees() for node in ast.walk(tree))


def _literals(expression: ast.expr) -> Iterator[str]:
    """Yield the words that an argument may be, from both branches of a condition."""
    match expression:
        case ast.Constant(value=str() as word):
            yield word
        case ast.IfExp(body=body, orelse=orelse):
            yield from _literals(body)
            yield from _literals(orelse)
        case ast.BoolOp(values=values):
            for value in values:
                yield from _literals(value)


def _said(call: str) -> set[str]:
    found: set[str] = set()
    for node in _nodes():
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            if name == call:
                found |= set(_literals(node.args[0]))
    return found


@functools.cache
def _members_named(kind: type[Reason]) -> frozenset[str]:
    return frozenset(
        str(kind[node.attr])
        for node in _nodes()
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == kind.__name__
        and node.attr in kind.__members__
    )


@functools.cache
def _all_literals() -> frozenset[str]:
    words = {n.value for n in _nodes() if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return frozenset(word.rpartition(".")[2] for word in words)


def test_the_page_is_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(_ROOT / "tools/gen_reasons.py"), "--check"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("call", _CALLS)
def test_every_word_at_a_call_is_a_member(call: str) -> None:
    known = {str(reason) for kind in _CALLS[call] for reason in kind}
    assert _said(call) <= known


def test_every_word_of_a_table_is_a_member() -> None:
    flags = {r.reason for r in (*GNU_FLAGS.rows, *MSVC_FLAGS.rows) if r.reason}
    assert flags <= set(BypassReason)
    assert set(HAZARD_REASONS.values()) <= set(UncacheableReason) & set(FallbackReason)


@pytest.mark.parametrize("kind", _KINDS)
def test_every_member_is_produced_somewhere(kind: type[Reason]) -> None:
    # What a scan of the text finds may also keep a compile from the farm.
    scanned = {*HAZARD_REASONS.values(), *ClosureReason} if kind is FallbackReason else set[str]()
    assert set(kind) <= _members_named(kind) | _all_literals() | scanned


@pytest.mark.parametrize("kind", _KINDS)
def test_every_reason_has_a_text_a_remedy_and_one_row_of_the_page(kind: type[Reason]) -> None:
    page = (_ROOT / PAGE).read_text()
    for reason in kind:
        assert _WORD.fullmatch(reason)
        assert reason.name == reason.upper().replace("-", "_")
        assert reason.text, reason
        assert not reason.text.endswith("."), reason
        assert reason.remedy, reason
        assert reason.anchor == f"{PAGE}#{reason.anchor_id}"
        assert page.count(f'<a id="{reason.anchor_id}"></a>`{reason}` |') == 1
    assert page.count(f'<a id="{next(iter(kind)).prefix.replace(".", "-")}-') == len(kind)


def test_the_guest_has_no_texts_of_reasons() -> None:
    assert [name for name, _ in own_files() if "reasons" in name] == []
