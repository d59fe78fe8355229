"""docs/adr/README.md lists every decision with the status that its file has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ADRS = Path(__file__).resolve().parents[2] / "docs/adr"
FILES = sorted(ADRS.glob("[0-9]*.md"))
INDEX = {
    row[1]: row
    for row in re.findall(
        r"^\| \[(\d+)\]\(([^)]+)\) \| (.+?) \| (.+?) \| (.+?) \|$",
        (ADRS / "README.md").read_text(),
        re.MULTILINE,
    )
}
LINK = re.compile(r"\[ADR (\d+)\]\((\d{4}-[\w-]+\.md)\)")
RELATIONS = {"Amends": "amended by", "Supersedes": "superseded by"}


def status_of(file: Path) -> str:
    line = file.read_text().splitlines()[2]
    match = re.fullmatch(r"Date: \d{4}-\d\d-\d\d\. Status: (.+)", line)
    assert match, f"{file.name}: the third line is {line!r}"
    return match[1]


def named_after(words: str, status: str) -> list[str]:
    """Return the ADR files linked after `words` in the same sentence."""
    clause = re.search(rf"\b{words} ([^.;]*(?:\.md[^.;]*)*)", status)
    return [name for _, name in LINK.findall(clause[1])] if clause else []


def expected(file: Path) -> str:
    status = status_of(file)
    for words in ("superseded by", "amended by"):
        if others := named_after(words, status):
            return f"{words} " + ", ".join(f"[{int(name[:4])}]({name})" for name in others)
    return "accepted"


def test_the_index_names_every_decision_in_order() -> None:
    assert list(INDEX) == [file.name for file in FILES]
    numbers = [int(row[0]) for row in INDEX.values()]
    # A number stays free while the change that took it is not merged yet.
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name[:4])
def test_number_title_and_status_are_those_of_the_file(file: Path) -> None:
    number, _, title, status, line = INDEX[file.name]
    assert file.read_text().splitlines()[0] == f"# {number}. {title}"
    assert number.zfill(4) == file.name[:4]
    assert status == expected(file)
    assert line


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name[:4])
def test_a_status_is_one_of_three_and_both_sides_name_each_other(file: Path) -> None:
    status = status_of(file)
    assert status.startswith(("accepted", "superseded by [ADR"))
    for number, name in LINK.findall(status):
        assert int(name[:4]) == int(number), name
        assert (ADRS / name).is_file(), name
    for words, answer in RELATIONS.items():
        for name in named_after(words, status):
            assert file.name in named_after(answer, status_of(ADRS / name)), name
        for name in named_after(answer, status):
            assert file.name in named_after(words, status_of(ADRS / name)), name
