"""Every call of a logger has a stable name, and docs/events.md lists the names."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hpcc.obs.events.table import Event

_TOOL = Path(__file__).resolve().parents[2] / "tools/gen_events.py"


def test_the_page_and_the_list_are_those_of_the_calls() -> None:
    done = subprocess.run([sys.executable, str(_TOOL), "--check"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_events", _TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_LIST = [Event("guest-lost", "guest %s is lost: %s", ("guest", "error"))]
_GOOD = '_log.warning("guest %s is lost: %s", guest, error)\n'


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("", ""),
        ('_log.info("all is well")', "no event for 'all is well'"),
        ('self._log.info("all is well")', "no event for 'all is well'"),
        ('logging.getLogger("x").error("all is well")', "no event for 'all is well'"),
        ("_log.error(text)", "write the sentence in the call"),
        ('_log.error(f"guest {guest}")', "write the sentence in the call"),
        ('_log.error("guest" + guest)', "write the sentence in the call"),
        ('_log.log(30, "guest %s is lost: %s", a, b)', "its severity as the method"),
        ('_log.info("guest %s is lost: %s", guest)', "guest-lost has 2 fields"),
    ],
)
def test_a_call_without_a_name_is_found(tool: ModuleType, source: str, problem: str) -> None:
    found = tool.calls_in(ast.parse(_GOOD + source), "x.py")
    assert problem in "".join(tool.problems(_LIST, found))
    assert problem or not list(tool.problems(_LIST, tool.calls_in(ast.parse(_GOOD), "x.py")))


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (Event("never-logged", "never", ()), "never-logged is never logged"),
        (Event("guest-lost", "other", ()), "is the name of 2 events"),
        (Event("x-y", "guest %s is lost: %s", ("a", "b")), "is the sentence of 2 events"),
        (Event("Lost", "lost", ()), "no name of an event"),
        (Event("library", "lost", ()), "no name of an event"),
        (Event("x-y", "lost %s", ()), "has other places than"),
        (Event("x-y", "lost %s", ("time",)), "a key of every line"),
        (Event("x-y", "%s %s", ("a", "a")), "there twice"),
        (Event("x-y", "peer=%s", ("host",)), "not called as in its sentence"),
    ],
)
def test_a_wrong_row_of_the_list_is_found(tool: ModuleType, event: Event, problem: str) -> None:
    found = list(tool.calls_in(ast.parse(_GOOD), "x.py"))
    assert list(tool.problems(_LIST, found)) == []
    assert problem in "\n".join(tool.problems([*_LIST, event], found))
