"""Settings for all tests. In CI, a test that skips because CI lacks an installable tool fails."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Generator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

from hpcc_testkit.hostile.canaries import leaked
from hpcc_testkit.suite.examples import examples, profile_name
from hpcc_testkit.suite.newest_clang import with_newest

# How long an example takes says something of the machine, and tests assert no times.
_ANY_SPEED: Final = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples in every run, so that `make check` and `./test.sh` are never red by chance.
settings.register_profile("ci", _ANY_SPEED, derandomize=True, database=None)
# Different examples in every run; with HPCC_HYPOTHESIS=soak also more of them (see `examples`).
# `--hypothesis-seed` selects it, because `derandomize` ignores a seed.
settings.register_profile(
    "soak", _ANY_SPEED, max_examples=examples(100), print_blob=True, derandomize=False
)

# Instead of the default for one test in pyproject.toml.
_SOAK_TEST_SECONDS: Final = 1200

# The names of what pytest captured: records of this process, and stderr of its dispatchers.
_LOGS: Final = ("Captured log", "Captured stderr")

# What no installation mends: a flag that this compiler does not have, a kernel that forbids mounts.
_HONEST = ("has no -", "may not mount", "needs a Windows host", "needs Python 3.13")
# Compilers that not every release of the distribution has.
_RARE_COMPILER = re.compile(r"no (?:gcc-12|g\+\+-12|clang(?:\+\+)?-(?:14|18|22)) here")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose Hypothesis' profile; handle SIGINT, which a shell's background jobs ignore.

    Tests find Clang 22 by name.
    """
    os.environ["PATH"] = with_newest(os.environ.get("PATH", os.defpath))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    is_seeded = config.getoption("hypothesis_seed", None) is not None
    settings.load_profile("soak" if is_seeded else profile_name())
    if profile_name() == "soak" and config.getoption("timeout", None) is None:
        config.option.timeout = _SOAK_TEST_SECONDS


@pytest.fixture(scope="session")
def postgres() -> Generator[Any]:
    """Yield the PostgreSQL cluster of this test process; each test creates its own database."""
    from hpcc_testkit.services.postgres import missing_or_none, private_postgres

    if missing := missing_or_none():
        pytest.skip(missing)
    with private_postgres() as cluster:
        yield cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not (any(word in reason for word in _HONEST) or _RARE_COMPILER.search(reason)):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, which could install what is missing: {reason}"
    _check_logs(report)
    _make_sendable(report)
    return report


def _check_logs(report: pytest.TestReport) -> None:
    """Fail a test whose logs hold a secret of a farm, or what else was planted."""
    logs = [text for name, text in report.sections if name.startswith(_LOGS)]
    found = [planted for text in logs for planted in leaked(text)]
    if found and report.passed:
        report.outcome = "failed"
        report.longrepr = f"a log holds what no log may hold: {found}"


def _make_sendable(report: pytest.TestReport) -> None:
    """Escape what has no UTF-8 form: a worker of xdist ends at a failure that shows such a name."""
    if report.failed:
        shown = str(report.longrepr)
        if not _is_text(shown):
            report.longrepr = _escaped(shown)
    if not all(_is_text(text) for _, text in report.sections):
        report.sections = [(name, _escaped(text)) for name, text in report.sections]


def _is_text(text: str) -> bool:
    return _escaped(text) == text


def _escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the seed of the tests that take every n-th case; see `hpcc_testkit.suite.sampling`."""
    from hpcc_testkit.suite.sampling import SEED_VARIABLE, seed_of

    terminalreporter.write_line(f"sampled tests: {SEED_VARIABLE}={seed_of(os.environ)}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Distribute tests to several processes; see `Schedule`."""
    from hpcc_testkit.suite.schedule import Schedule

    return Schedule(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest tests first if tests are distributed to several processes."""
    if hasattr(config, "workerinput"):
        from hpcc_testkit.suite.schedule import dealt

        items[:] = [items[i] for i in dealt([item.nodeid for item in items])]
