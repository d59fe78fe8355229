"""The check for phrases that are not plain English, on small texts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

import check_prose
from check_prose import Hit, compare, hits_in, page_passages, python_passages, read_debt


def phrases_of(path: str, text: str) -> list[tuple[int, str]]:
    passages = python_passages(path, text) if path.endswith(".py") else page_passages(text)
    return [(hit.line, hit.phrase) for hit in hits_in(path, passages)]


def some(path: str, count: int) -> list[Hit]:
    return [Hit(path, line, "whoever", "name the party") for line in range(1, count + 1)]


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("a machine of its own", "of its own"),
        ("a kernel of ours", "of ours"),
        ("Whoever calls this", "Whoever"),
        ("it waits for ever", "for ever"),
        ("kept for the owner alone.", "alone"),
        ("kept for the owner alone", "alone"),
        ("the worker is told of it", "is told"),
        ("what it costs is said there", "is said"),
        ("Refuse what is no small thing", "is no"),
        ("where none is running", "none is"),
        ("Have it done by the pool", "Have it done"),
        ("it is nobody's name", "nobody's"),
        ("what comes is let go", "let go"),
        ("as good as done", "as good as"),
        ("it stays; there are no others", "there are no others"),
        ("the header is of no use", "of no use"),
        ("what a guest has not.", "has not"),
    ],
)
def test_each_phrase_to_avoid_is_found(text: str, phrase: str) -> None:
    assert phrases_of("docs/a.md", text) == [(1, phrase)]


@pytest.mark.parametrize(
    "text",
    [
        "There is no login by password.",
        "There really is no such file.",
        "The entry is no longer valid, and no larger than before: it is no larger than 1 MiB.",
        "Returns None. None is returned twice.",
        "It runs alone in the guest. A standalone program, a stand-alone one.",
        "The launcher has not started yet.",
        "Tell the caller. He said so.",
        "as good a reason as any",
    ],
)
def test_plain_sentences_pass(text: str) -> None:
    assert phrases_of("docs/a.md", text) == []


def test_a_phrase_over_two_lines_of_comment_is_found_where_it_starts() -> None:
    text = "x = 1\n# A machine of its\n# own, and more.\ny = 2  # alone\n"
    assert phrases_of("tests/a.py", text) == [(2, "of its own"), (4, "alone")]


def test_comments_that_do_not_touch_are_not_read_as_one() -> None:
    assert phrases_of("tests/a.py", "# a machine of its\n\n# own\nx = 1  # of its\n# own\n") == []


def test_a_docstring_is_read_and_its_line_is_exact() -> None:
    text = 'def f() -> None:\n    """First.\n\n    It waits for\n    ever.\n    """\n'
    assert phrases_of("src/hpcc/core/a.py", text) == [(4, "for ever")]


def test_a_message_is_read_where_it_is_raised_and_in_the_commands() -> None:
    raised = 'raise ValueError(f"{name!r} is no file that " "can be read")\n'
    data = 'WORDS = "these texts are of no use here"\n'
    assert phrases_of("src/hpcc/core/a.py", raised + data) == [(1, "is no")]
    assert phrases_of("src/hpcc/cli/a.py", raised + data) == [(1, "is no"), (2, "of no use")]
    assert phrases_of("tests/a.py", raised + data) == []


def test_code_is_not_prose() -> None:
    assert phrases_of("docs/a.md", "Run `hpcc whoever`.\n```\nwhoever\n```\nwhoever\n") == [
        (5, "whoever")
    ]
    assert phrases_of("tests/a.py", "# `whoever` is a name.\nwhoever = for_ever = 1\n") == []


def test_a_path_over_its_debt_fails_with_every_hit() -> None:
    assert compare({"a.py": some("a.py", 2)}, {"a.py": 1}) == [
        'a.py:1: "whoever": name the party',
        'a.py:2: "whoever": name the party',
        "a.py: 2 phrases, 1 allowed by tools/prose_debt.txt",
    ]


def test_a_debt_that_was_paid_must_be_lowered() -> None:
    lines = compare({"a.py": some("a.py", 1)}, {"a.py": 2, "gone.py": 1})
    assert [line.split(":")[1].strip() for line in lines] == [
        "a.py has 1, not 2",
        "gone.py has 0, not 1",
    ]
    assert compare({"a.py": some("a.py", 2)}, {"a.py": 2}) == []


def test_an_update_is_refused_when_the_total_grows_and_follows_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tools").mkdir()
    monkeypatch.setattr(check_prose, "ROOT", tmp_path)
    assert check_prose._update({"new.py": some("new.py", 3)}, {"old.py": 2}) == 1
    assert "3 phrases are more than 2" in capsys.readouterr().out
    assert not (tmp_path / check_prose.DEBT).exists()
    assert check_prose._update({"new.py": some("new.py", 2)}, {"old.py": 2}) == 0
    assert read_debt((tmp_path / check_prose.DEBT).read_text()) == {"new.py": 2}


@pytest.mark.parametrize("text", ["x a.py", "0 a.py", "1", "1 a.py\n2 a.py"])
def test_a_broken_debt_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|COUNT PATH"):
        read_debt(text)


def test_generated_files_and_old_decisions_are_left_out() -> None:
    assert check_prose.is_checked("src/hpcc/cli/a.py")
    assert check_prose.is_checked("docs/spec/guest.md")
    assert not check_prose.is_checked("docs/adr/0001-architecture.md")
    assert not check_prose.is_checked("docs/adr/README.md")
    assert check_prose.is_checked("docs/adr/0114-farm-builds.md")
    assert not check_prose.is_checked("src/hpcc/_proto/agent_pb2.py")
    assert not check_prose.is_checked("CHANGELOG.md")
