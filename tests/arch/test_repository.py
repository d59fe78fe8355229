"""Rules that the whole tree must follow."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--", *patterns], capture_output=True, check=True
    )
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ +(.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", tracked("*.md"), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_page_has_a_dead_link(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


def test_the_readme_shows_the_commands_that_help_prints() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/gen_help.py"), "--check"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, f"run `make gen`\n{done.stderr.decode()}"


def test_no_file_names_a_path_of_one_machine() -> None:
    bad = re.compile(rb"(?<![\w.])/(?:work|farm)/\w|/root/\.")
    own = Path(__file__)
    found = [
        str(f.relative_to(ROOT))
        for f in tracked()
        if f != own and f.is_file() and bad.search(f.read_bytes())
    ]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(f.relative_to(ROOT)) for f in tracked("src/hpcc/*.py")
        if "_proto" not in f.parts and not f.read_text().startswith('"""')
    ]  # fmt: skip
    assert silent == []


def test_no_file_has_grown_past_one_purpose() -> None:
    long = {
        str(f.relative_to(ROOT)): n for f in tracked("src/hpcc/*.py")
        if "_proto" not in f.parts and (n := f.read_text().count("\n")) > 600
    }  # fmt: skip
    assert long == {}


def test_every_silenced_check_has_its_reason_beside_it() -> None:
    bare = []
    for file in tracked("src/hpcc/*.py", "testkit/*.py", "tests/*.py"):
        if "_proto" in file.parts or file == Path(__file__):
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = re.search(r"#\s*(?:noqa|type: ignore)[^#]*", line)
            if match and not re.search(
                r"(?:noqa: [A-Z0-9, ]+|ignore\[[\w, -]+\])\s*(?:#\s*|- )\S+", line[match.start() :]
            ):
                bare.append(f"{file.relative_to(ROOT)}:{number}")
    assert bare == []


def _names_of_tests(body: list[ast.stmt]) -> set[str]:
    return {
        one.name for one in body
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_")
    }  # fmt: skip


def _classes(*patterns: str) -> Iterator[tuple[Path, ast.ClassDef]]:
    for file in tracked(*patterns):
        for one in ast.parse(file.read_text()).body:
            if isinstance(one, ast.ClassDef):
                yield file, one


def _collected() -> set[str]:
    """Return the tests that pytest collects: a suite of the testkit runs only where it is used."""
    found, used = set[str](), set[str]()
    for file in tracked("tests/*.py"):
        if file.name.startswith("test_"):
            found |= _names_of_tests(ast.parse(file.read_text()).body)
    for file, one in _classes("tests/*.py"):
        if file.name.startswith("test_") and one.name.startswith("Test"):
            found |= _names_of_tests(one.body)
            used |= {base.id for base in one.bases if isinstance(base, ast.Name)}
    suites = {one.name: one for _, one in _classes("testkit/*.py")}
    while used:
        suite = suites.pop(used.pop(), None)
        if suite is not None:
            found |= _names_of_tests(suite.body)
            used |= {base.id for base in suite.bases if isinstance(base, ast.Name)}
    return found


def test_each_test_that_the_security_page_names_is_collected() -> None:
    pages = [(ROOT / "docs" / name).read_text() for name in ("security.md", "reviewers.md")]
    named = set(re.findall(r"`(test_\w+)`", "".join(pages)))
    assert len(named) > 40
    assert named - _collected() == set()


def test_every_hypothesis_test_grows_in_a_soak() -> None:
    """A bare `max_examples=100` overrides the profile, so a soak would try as few as a check."""
    bare = re.compile(rb"max_examples=\s*[0-9]")
    files = (f for f in tracked("tests/*.py", "src/*.py") if f != Path(__file__))
    found = [f.name for f in files if bare.search(f.read_bytes())]
    assert found == []


@pytest.mark.parametrize(
    ("profile", "arguments", "expected"),
    [
        ("", (), "True 100"),
        ("ci", (), "True 100"),
        ("ci", ("--hypothesis-seed=7",), "False 100"),
        ("soak", (), "False 1000"),
    ],
)
def test_a_check_tries_the_same_examples_each_time_and_a_soak_does_not(
    tmp_path: Path, profile: str, arguments: tuple[str, ...], expected: str
) -> None:
    """tests/conftest.py chooses before any test module is imported."""
    shutil.copy(ROOT / "tests/conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        "from hypothesis import settings\nNOW = settings()\n"
        "def test_it():\n    print('profile', NOW.derandomize, NOW.max_examples)\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "HPCC_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *arguments, "."],
        cwd=tmp_path,
        env=env | ({"HPCC_HYPOTHESIS": profile} if profile else {}),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert f"profile {expected}\n" in done.stdout, done.stdout + done.stderr


def test_the_identity_provider_of_the_tests_is_locked_to_one_version() -> None:
    directory = ROOT / "tests" / "oidc"
    wanted = json.loads((directory / "package.json").read_text())["dependencies"]
    locked = json.loads((directory / "package-lock.json").read_text())["packages"]
    assert {n: locked[f"node_modules/{n}"]["version"] for n in wanted} == wanted
    assert all("integrity" in p for name, p in locked.items() if name)


def test_nothing_that_a_compiler_wrote_is_in_the_tree() -> None:
    assert tracked("*.o", "*.d", "*.gch") == []
