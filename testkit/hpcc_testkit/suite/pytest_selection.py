"""A pytest plugin: marks what each test costs, and runs the tests that `selection` chooses.

Options: `--select=changed` (what `./test.sh` takes), `--stage=NAME` (one stage of `make nightly`),
`--items-to=FILE` (write down the decision about each test). Without them all given tests run.

In a parallel run each worker collects and decides by itself, so the decision depends only on files
that do not change during the run and on a seed that the controller puts into the environment. The
controller collects nothing: it gets the workers' counts when they end, and prints them.
"""

from __future__ import annotations

import json
import os
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from hpcc_testkit.suite import nightly_lock
from hpcc_testkit.suite.selection import (
    BOUNDS,
    DEFAULT_SECONDS,
    PYTEST_STAGES,
    Item,
    Kind,
    Selection,
    choose,
    stage_of,
)
from hpcc_testkit.suite.source_hash import SourceHashes

LOCK: Final = "tests/nightly.lock"
# Reports of runs, below the root; git ignores it.
REPORTS: Final = ".nightly"
LEFT_OUT: Final = f"{REPORTS}/left-out.txt"
SEED_VARIABLE: Final = "HPCC_SELECTION_SEED"
_OUTPUT: Final = "hpcc_selection"
_SUMMARY: Final = pytest.StashKey[dict[str, Any]]()
_SECONDS_A_DAY: Final = 86_400
# Fixtures that only tests of one kind use. Nested tests are marked by the conftest that hands them
# to the emulated machine.
_FIXTURES: Final = {"mutants": Kind.MUTATION, "wine": Kind.WINE}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; without them the plugin selects nothing."""
    group = parser.getgroup("hpcc")
    group.addoption(
        "--select", choices=("changed",),
        help=f"leave out mutation rows, Wine and nested-VM tests that {LOCK} holds",
    )  # fmt: skip
    group.addoption("--stage", choices=PYTEST_STAGES, help="only the tests of a nightly stage")
    group.addoption("--items-to", metavar="FILE", help="write stage, kind and hash of each test")


def pytest_configure(config: pytest.Config) -> None:
    """Fix the seed before workers start, so that a run over midnight has one seed."""
    if config.option.select:
        os.environ.setdefault(SEED_VARIABLE, str(int(time.time()) // _SECONDS_A_DAY))


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the markers, and before tests are dealt
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with its kind; keep those that the options select."""
    kinds = {item.nodeid: _kind_of(item) for item in items}
    for item in items:
        if (kind := kinds[item.nodeid]) is not Kind.PLAIN:
            item.add_marker(kind.value)
    if config.option.stage:
        _keep(config, items, {n for n, k in kinds.items() if stage_of(n, k) == config.option.stage})
    if config.option.select or config.option.items_to:
        _select(config, items, kinds)


def _select(config: pytest.Config, items: list[pytest.Item], kinds: dict[str, Kind]) -> None:
    known, problem = read_lock(config.rootpath)
    described = _described(config.rootpath, items, kinds)
    seed = int(os.environ.get(SEED_VARIABLE, "0"))
    selection = choose(described, known, seed)
    if config.option.items_to and _is_first_worker(config):
        _dump(Path(config.option.items_to), described, selection)
    if config.option.select:
        config.stash[_SUMMARY] = summary(described, selection, problem)
        _keep(config, items, selection.taken)


def read_lock(root: Path) -> tuple[dict[str, str], str]:
    """Return the lock's hashes and what is wrong with the file; a wrong file has no hashes."""
    file = root / LOCK
    try:
        return (nightly_lock.parse(file.read_text()) if file.exists() else {}), ""
    except (nightly_lock.LockError, UnicodeDecodeError) as error:
        return {}, f"{LOCK}: {error}; all its tests count as changed"


def _kind_of(item: pytest.Item) -> Kind:
    for kind in BOUNDS:
        if item.get_closest_marker(kind.value):
            return kind
    fixtures = getattr(item, "fixturenames", ())
    found = next((kind for name, kind in _FIXTURES.items() if name in fixtures), None)
    return found or (Kind.MUTATION if _case_of(item) else Kind.PLAIN)


def _case_of(item: pytest.Item) -> Any:  # noqa: ANN401 - each module may have its own class
    """Return the mutation row of a test: the value in its module's CASES that a parameter names."""
    cases = getattr(getattr(item, "module", None), "CASES", None)
    params = getattr(getattr(item, "callspec", None), "params", {})
    if not isinstance(cases, dict):
        return None
    found = [cases[value] for value in params.values() if isinstance(value, str) and value in cases]
    return next((c for c in found if hasattr(c, "file") and hasattr(c, "without")), None)


def _described(root: Path, items: list[pytest.Item], kinds: dict[str, Kind]) -> list[Item]:
    hashes = SourceHashes(root)
    measured = _measured(root)
    return [
        Item(i.nodeid, kind)
        if (kind := kinds[i.nodeid]) is Kind.PLAIN
        else Item(
            i.nodeid,
            kind,
            _digest(hashes, root, i),
            measured.get(_report_name(i.nodeid), DEFAULT_SECONDS[kind]),
        )
        for i in items
    ]


def _digest(hashes: SourceHashes, root: Path, item: pytest.Item) -> str:
    case = _case_of(item)
    if case is None:
        return hashes.of_test(item.path)
    # A row without a test is carried out by the code of the row's module.
    test = getattr(case, "test", "")
    path = root / test.partition("::")[0] if test else item.path
    return hashes.of_row(case, case.file, [path])


def _measured(root: Path) -> dict[tuple[str, str], float]:
    """Return seconds by class and name from the junit files of earlier runs, the newest last."""
    found: dict[tuple[str, str], float] = {}
    for file in sorted((root / REPORTS).glob("*.xml"), key=lambda f: f.stat().st_mtime):
        try:
            cases = ET.parse(file).iter("testcase")  # noqa: S314 - an earlier run wrote the file
        except (ET.ParseError, OSError):
            continue
        for case in cases:
            name = case.get("classname", ""), case.get("name", "")
            found[name] = float(case.get("time", "0"))
    return found


def _report_name(node_id: str) -> tuple[str, str]:
    """Return the class and name that a junit file gives to a test."""
    plain, bracket, params = node_id.partition("[")
    path, *names = plain.split("::")
    module = path.removesuffix(".py").replace("/", ".")
    return ".".join([module, *names[:-1]]), names[-1] + bracket + params


def _keep(
    config: pytest.Config, items: list[pytest.Item], taken: set[str] | frozenset[str]
) -> None:
    left = [item for item in items if item.nodeid not in taken]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item.nodeid in taken]


def _is_first_worker(config: pytest.Config) -> bool:
    worker: str = getattr(config, "workerinput", {"workerid": "gw0"})["workerid"]
    return worker == "gw0"


def _dump(file: Path, items: list[Item], selection: Selection) -> None:
    file.write_text(
        json.dumps(
            {
                i.node_id: {
                    "stage": stage_of(i.node_id, i.kind),
                    "kind": i.kind.value,
                    "digest": i.digest,
                    "taken": i.node_id in selection.taken,
                }
                for i in items
            }
        )
    )


def summary(items: list[Item], selection: Selection, problem: str) -> dict[str, Any]:
    """Return what the run's end prints, in types that a worker can send to the controller."""
    kind_of = {i.node_id: i.kind for i in items}
    counts = [
        Counter(kind_of[n] for n in ids)
        for ids in (selection.taken, selection.unchanged, selection.over_bound)
    ]
    rows = [
        [kind.value, *(c[kind] for c in counts), int(bound)]
        for kind, bound in BOUNDS.items()
        if any(c[kind] for c in counts)
    ]
    return {"rows": rows, "left": list(selection.over_bound), "problem": problem}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - xdist has no types
    """Take a worker's summary; all workers have the same."""
    if found := getattr(node, "workeroutput", {}).get(_OUTPUT):
        node.config.stash[_SUMMARY] = found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the summary to the controller, if this is a worker."""
    if _SUMMARY in session.config.stash and hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_OUTPUT] = session.config.stash[_SUMMARY]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was left out, and write the names of what the bound left out to a file."""
    is_worker = hasattr(config, "workerinput")  # workers have a reporter that nobody sees
    if _SUMMARY not in config.stash or config.option.collectonly or is_worker:
        return
    found = config.stash[_SUMMARY]
    terminalreporter.section("left out of this run; `make nightly` runs everything")
    for line in text(found):
        terminalreporter.write_line(line)
    file = config.rootpath / LEFT_OUT
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{node_id}\n" for node_id in found["left"]))
    terminalreporter.write_line(f"names of the tests over a bound: {LEFT_OUT}")


def text(found: dict[str, Any]) -> list[str]:
    """Return the lines for a summary: one for a damaged lock, one for each kind."""
    lines = [found["problem"]] if found["problem"] else []
    for kind, taken, unchanged, over, bound in found["rows"]:
        lines.append(
            f"{kind:9} {taken:4} run, {unchanged:4} unchanged since the nightly,"
            f" {over:4} over the bound of {bound} s"
        )
    return lines
