"""Rejects phrases that do not read as plain English (CONTRIBUTING.md, "Prose").

    check_prose.py              compare every tracked text with tools/prose_debt.txt
    check_prose.py PATH…        show every hit in these files or directories, debt or not
    check_prose.py --report     hits per package
    check_prose.py --update     write tools/prose_debt.txt anew; refused if the total would grow

The tree had hundreds of these phrases when the check was added. The debt file holds the number of
hits that each path may still have. A path with more hits fails, and a path with fewer must be
lowered, so the debt only shrinks. After a file was moved, `--update` writes its count under the
new path.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DEBT: Final = "tools/prose_debt.txt"

# Shorter literals are keys, names and formats.
_SENTENCE_CHARS: Final = 20
_PYTHON_ROOTS: Final = ("src", "testkit", "tools", "bench", "tests")
_PAGES: Final = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")
# Decisions are records, which are not rewritten for a phrase: those up to this number are older
# than the check, and the index quotes their titles.
_DECISIONS: Final = "docs/adr/"
_OLD_DECISIONS: Final = 112
# This file and its test quote every phrase.
_EXEMPT: Final = ("tools/check_prose.py", "tests/unit/tools/test_check_prose.py")


@dataclass(frozen=True, slots=True)
class Rule:
    """One phrase: the pattern that finds it, and what to write in its place."""

    pattern: re.Pattern[str]
    hint: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A text with the line it starts on; line breaks in it are line breaks in the file."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One phrase in one file; `path` is relative to the root, with slashes."""

    path: str
    line: int
    phrase: str
    hint: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.phrase}": {self.hint}'


def _rule(pattern: str, hint: str, *, folds_case: bool = True) -> Rule:
    spaced = pattern.replace(" ", r"\s+")
    return Rule(re.compile(rf"(?<![\w-]){spaced}", re.IGNORECASE if folds_case else 0), hint)


# `None` begins a sentence about Python's None, so these two do not fold case.
RULES: Final = (
    _rule(r"of (?:its|their) own\b", 'write "its own X", "a separate X", or leave it out'),
    _rule(r"of (?:ours|theirs)\b", 'write "our X" or name the owner'),
    _rule(r"whoever\b", 'name the party: "the caller", "a client that …"'),
    _rule(r"for ever\b", 'write "forever", "without limit", or the number'),
    _rule(r"alone(?=\s*(?:[.;:!?](?:\s|$)|$))", 'write "only X" before the word it limits'),
    _rule(r"(?:is|are|was|were|be|been|being) told\b", 'say who sends what: "the daemon gets X"'),
    _rule(r"(?:is|are|was|were|be|been|being) said\b", 'say who reports it: "the log names X"'),
    _rule(r"(?:is|was|are|were) no (?!longer\b|more\b|less\b|\w+er than\b)", 'write "is not a X"'),
    _rule(r"none (?:is|are|was|were)\b", 'give the positive: "only X is …"', folds_case=False),
    _rule(r"(?:it|this|that|one) (?:is|was) none\b", 'write "is not one"', folds_case=False),
    _rule(r"(?:have|has|had) (?:it|them) (?:done|made|ended|sent|checked)\b", "name who does it"),
    _rule(r"nobody's\b", 'say who owns it, or "unowned"'),
    _rule(r"(?:let|lets|letting) go\b", 'write "release", "discard" or "close"'),
    _rule(r"as good as\b", 'write "almost", or the difference'),
    _rule(r"there (?:is|are) no others?\b", 'write "only X"'),
    _rule(r"is there (?:no|none)\b", 'write "there is no X"'),
    _rule(r"of no (?:use|worker|tenant|interest)\b", 'write "does not X"'),
    _rule(r"to be had\b", 'write "is not available"'),
    _rule(r"(?:has|have|had) not(?=[.,;:)])", 'write "does not have X"'),
)


def rule_hits(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield offset, phrase and hint of each match."""
    for rule in RULES:
        for match in rule.pattern.finditer(text):
            # "there really is no …" is plain English.
            if match[0].lower().endswith(" no ") and _follows_there(text, match.start()):
                continue
            yield match.start(), " ".join(match[0].split()), rule.hint


def _follows_there(text: str, offset: int) -> bool:
    before = re.findall(r"\w+", text[max(0, offset - 24) : offset].lower())
    return bool({"there", "here"} & set(before[-3:]))


def _without_code(text: str) -> str:
    """Blank out what stands between backticks; offsets and lines stay."""
    return re.sub(r"`[^`\n]*`", lambda match: "`" * len(match[0]), text)


def hits_in(path: str, passages: Iterable[Passage]) -> list[Hit]:
    """Return the hits of these passages in the order of their lines."""
    found = []
    for passage in passages:
        text = _without_code(passage.text)
        for offset, phrase, hint in rule_hits(text):
            found.append(Hit(path, passage.line + text.count("\n", 0, offset), phrase, hint))
    return sorted(found, key=lambda hit: (hit.line, hit.phrase))


# Python: comments come from the tokens, docstrings and literals from the syntax tree.


def python_passages(path: str, source: str) -> Iterator[Passage]:
    """Yield the prose of a module: comments, docstrings, and the texts that users see.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(source)
    yield from _comments(source)
    docstrings = {id(node): node for node in _docstrings(tree)}
    for node in docstrings.values():
        yield Passage(node.lineno, str(node.value))
    if path.startswith("src/"):
        roots: Iterable[ast.AST] = [tree] if "/cli/" in path else _raised(tree)
        seen: set[int] = set(docstrings)
        for root in roots:
            yield from _literals(root, seen)


def _comments(source: str) -> Iterator[Passage]:
    """Yield comments; lines of comment that follow each other are one passage."""
    block: list[str] = []
    first = column = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, start = token.start
        stands_apart = not token.line[:start].strip()
        text = token.string.lstrip("#:! ")
        if block and stands_apart and (line, start) == (first + len(block), column):
            block.append(text)
            continue
        if block:
            yield Passage(first, "\n".join(block))
        # A comment behind code never continues on the next line.
        block, first, column = [text], line, start if stands_apart else -1
    if block:
        yield Passage(first, "\n".join(block))


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0] if node.body else None
        value = first.value if isinstance(first, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value


def _raised(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield node.exc


def _literals(root: ast.AST, seen: set[int]) -> Iterator[Passage]:
    """Yield the strings below `root` that are long enough to be sentences, each once.

    An f-string is one text; "{}" stands for its values.
    """
    for node in ast.walk(root):
        if id(node) in seen:
            continue
        seen.add(id(node))
        text = ""
        if isinstance(node, ast.JoinedStr):
            seen.update(id(part) for part in node.values)
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            text = "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        if len(text) > _SENTENCE_CHARS and isinstance(node, ast.expr):
            # Escaped line breaks are not line breaks of the file.
            yield Passage(node.lineno, text.replace("\n", " "))


def page_passages(text: str) -> Iterator[Passage]:
    """Yield a Markdown page without its code blocks, as one passage."""
    lines = []
    is_code = False
    for line in text.split("\n"):
        is_fence = line.lstrip().startswith(("```", "~~~"))
        is_code ^= is_fence
        lines.append("" if is_code or is_fence else line)
    yield Passage(1, "\n".join(lines))


# The tree.


def is_checked(path: str) -> bool:
    """Return whether a tracked path holds prose that this check reads."""
    if path in _EXEMPT or "/_proto/" in path:
        return False
    parts = PurePosixPath(path).parts
    if path.endswith(".py"):
        return parts[0] in _PYTHON_ROOTS
    if not path.endswith(".md"):
        return False
    if path.startswith(_DECISIONS):
        number, _, _ = parts[-1].partition("-")
        return number.isdecimal() and int(number) > _OLD_DECISIONS
    return path in _PAGES or parts[0] in {"docs", "changes", "deploy"}


def tracked(root: Path) -> list[str]:
    """Return the checked paths that git knows, and new ones that it does not ignore."""
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = sorted(set(listing.stdout.split("\0")) - {""})
    return [name for name in names if is_checked(name) and (root / name).is_file()]


def hits_of(root: Path, path: str) -> list[Hit]:
    """Return the hits in one file.

    Raises:
        SyntaxError: it ends in .py and is not Python.
    """
    text = (root / path).read_text(encoding="utf-8")
    passages = python_passages(path, text) if path.endswith(".py") else page_passages(text)
    return hits_in(path, passages)


def read_debt(text: str) -> dict[str, int]:
    """Parse `COUNT PATH` lines.

    Raises:
        ValueError: a line has another form, or names a path twice.
    """
    debt: dict[str, int] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        count, _, path = line.partition(" ")
        if not path or path in debt or int(count) < 1:
            raise ValueError(f"{DEBT}: {line!r} is not `COUNT PATH`, or the path is there twice")
        debt[path] = int(count)
    return debt


def compare(hits: dict[str, list[Hit]], debt: dict[str, int]) -> list[str]:
    """Return what is wrong, as lines to print; empty when each path has exactly its debt."""
    trouble: list[str] = []
    for path, found in sorted(hits.items()):
        if len(found) > debt.get(path, 0):
            trouble += map(str, found)
            trouble.append(f"{path}: {len(found)} phrases, {debt.get(path, 0)} allowed by {DEBT}")
    for path, allowed in sorted(debt.items()):
        if len(hits.get(path, ())) < allowed:
            now = len(hits.get(path, ()))
            trouble.append(f"{DEBT}: {path} has {now}, not {allowed}: run check_prose.py --update")
    return trouble


def debt_text(hits: dict[str, list[Hit]]) -> str:
    """Return the debt file for these hits."""
    head = (
        "# Phrases that tools/check_prose.py rejects and that are still in the tree: COUNT PATH.\n"
        "# Written by `tools/check_prose.py --update`, which refuses a larger total.\n"
    )
    return head + "".join(f"{len(found)} {path}\n" for path, found in sorted(hits.items()) if found)


def report(hits: dict[str, list[Hit]]) -> str:
    """Return hits per package, the largest first, and the total."""
    counts: Counter[str] = Counter()
    for path, found in hits.items():
        parts = PurePosixPath(path).parts
        depth = 3 if parts[:2] == ("src", "hpcc") else 2
        counts["/".join(parts[: min(depth, max(1, len(parts) - 1))])] += len(found)
    rows = [f"{count:6} {name}" for name, count in counts.most_common() if count]
    return "\n".join([*rows, f"{counts.total():6} in all"])


def _update(hits: dict[str, list[Hit]], old: dict[str, int]) -> int:
    total = sum(map(len, hits.values()))
    if old and total > sum(old.values()):
        print(f"{DEBT}: {total} phrases are more than {sum(old.values())}: mend the new ones:")
        print("\n".join(compare(hits, old)))
        return 1
    (ROOT / DEBT).write_text(debt_text(hits))
    return 0


def _below(paths: list[str], wanted: list[str]) -> list[str]:
    roots = [str(Path(name).resolve()) for name in wanted]
    return [p for p in paths if any(f"{ROOT / p}/".startswith(f"{root}/") for root in roots)]


def main(argv: list[str]) -> int:
    """Run the check and return its exit code."""
    parser = argparse.ArgumentParser(description="Reject phrases that are not plain English.")
    parser.add_argument("paths", nargs="*", help="show every hit in these")
    parser.add_argument("--report", action="store_true", help="hits per package")
    parser.add_argument("--update", action="store_true", help=f"write {DEBT}, if it shrinks")
    args = parser.parse_args(argv)
    paths = tracked(ROOT)
    hits = {p: hits_of(ROOT, p) for p in (_below(paths, args.paths) if args.paths else paths)}
    if args.paths:
        for found in hits.values():
            for hit in found:
                print(hit)
        return int(any(hits.values()))
    if args.report:
        print(report(hits))
        return 0
    file = ROOT / DEBT
    debt = read_debt(file.read_text()) if file.exists() else {}
    if args.update:
        return _update(hits, debt)
    trouble = compare(hits, debt)
    print("\n".join(trouble), end="\n" if trouble else "")
    return int(bool(trouble))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
