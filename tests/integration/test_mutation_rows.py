"""A mutation row counts as noticed only if its test failed against the mutated copy."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants
from hpcc_testkit.suite.row_client import RowServer

CHECK = "return size < LIMIT"
PACKAGE = {
    "pyproject.toml": """
        [tool.pytest.ini_options]
        addopts = ["--strict-markers", "--strict-config", "--import-mode=importlib"]
        filterwarnings = ["error"]
        asyncio_mode = "auto"
        asyncio_default_fixture_loop_scope = "function"
        timeout = 120
    """,
    "native/lib.c": "int limit = 3;",
    "launcher/none.c": "",
    "tools/hatch_build.py": """
        LIBRARY = "_lib.so"
        def build_native(root, output):
            output.write_text((root / "native/lib.c").read_text())
    """,
    "src/hpcc/__init__.py": "",
    "src/hpcc/limits.py": f"""
        LIMIT = 3
        TWICE = (0, 0)
        def is_small(size):
            {CHECK}
    """,
    "src/hpcc/door.py": """
        from hpcc.limits import is_small
        def lets_in(size):
            return is_small(size)
    """,
    "tests/conftest.py": """
        import pytest
        from hypothesis import settings
        settings.register_profile("ours", deadline=None)
        settings.load_profile("ours")

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if report.skipped:
                report.outcome = "failed"
                report.longrepr = "skipped in CI"
            return report
    """,
    "tests/test_at_the_top.py": """
        from hpcc.limits import is_small
        def test_limit():
            assert not is_small(3)
    """,
    "tests/test_rows.py": """
        import os, subprocess, sys, time
        from pathlib import Path
        import pytest
        from hypothesis import Phase, given, settings, strategies

        def is_small(size):
            from hpcc.limits import is_small
            return is_small(size)

        def test_limit():
            assert not is_small(3)

        async def test_async():
            assert not is_small(3)

        def test_importer():
            from hpcc.door import lets_in
            assert not lets_in(3)

        @given(strategies.just(3))
        def test_given(size):
            assert not is_small(size)

        def test_program():
            code = "import hpcc.door, sys; sys.exit(hpcc.door.lets_in(3))"
            assert subprocess.run([sys.executable, "-c", code]).returncode == 0

        def test_library():
            import hpcc
            assert "3" in (Path(hpcc.__file__).parents[1] / "_lib.so").read_text()

        def test_surroundings():
            now = settings.default
            is_hasty = not {Phase.shrink, Phase.explain} & set(now.phases) and now.database is None
            is_alone = os.getsid(0) == os.getpid() and os.read(0, 1) == b""
            is_safe = "hypothesis" in sys.modules and now.deadline is None
            assert not (is_small(3) and is_hasty and is_alone and is_safe)

        def test_much_output():
            print("x" * 1_000_000)
            assert not is_small(3)

        def test_unaware():
            pass

        def test_skip():
            if is_small(3):
                pytest.skip("no compiler here")

        def test_leaves_early():
            if is_small(3):
                os._exit(1)

        @pytest.mark.timeout(1)
        def test_own_timeout():
            while is_small(3):
                time.sleep(0.01)

        def test_hangs():
            with subprocess.Popen(["sleep", "1000"]) as sleeper:
                Path(os.environ["PID_FILE"]).write_text(f"{os.getpid()} {sleeper.pid}\\n")

        @pytest.fixture
        def broken_before():
            assert not is_small(3)

        def test_setup(broken_before):
            pass

        @pytest.fixture
        def broken_after():
            yield
            assert not is_small(3)

        def test_teardown(broken_after):
            pass

        class Late:
            def pytest_sessionfinish(self):
                Late()
            def __del__(self):
                raise ValueError("left over")

        def test_leaves_something(request):
            request.config.pluginmanager.register(Late())
            assert not is_small(3)

        def test_both(broken_after):
            assert not is_small(3)
    """,
}


@pytest.fixture(scope="module")
def pid_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pids") / "pids"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    for name in ("testkit", "guest"):
        (root / name).mkdir()
    for name, text in PACKAGE.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        margin = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
        file.write_text("".join(f"{line[margin:]}\n" for line in lines))
    return root


@pytest.fixture(scope="module")
def rows(root: Path, pid_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mutants]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PID_FILE", str(pid_file))
        rows = Mutants(root, tmp_path_factory.mktemp("copy"))
        yield rows
        rows.close()


def row(
    test: str, without: str = "return True", check: str = CHECK, file: str = "limits.py"
) -> Case:
    return Case(file, check, without, f"tests/{test}")


def wait_until(is_true: Callable[[], bool]) -> None:
    for _ in range(6000):
        if is_true():
            return
        time.sleep(0.01)
    raise TimeoutError("it did not become true in a minute")


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie, which a container may never reap, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    "test",
    [
        "test_at_the_top.py::test_limit",
        "test_rows.py::test_limit",
        "test_rows.py::test_async",
        "test_rows.py::test_importer",
        "test_rows.py::test_given",
        "test_rows.py::test_program",
        "test_rows.py::test_surroundings",
        "test_rows.py::test_much_output",
        "test_rows.py::test_both",
        "test_rows.py::test_leaves_something",
        "test_rows.py",
    ],
)
def test_a_test_that_fails_against_the_copy_is_a_notice(test: str, rows: Mutants) -> None:
    rows.check(row(test))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (row("test_rows.py::test_unaware"), "no test failed of 1"),
        (row("test_rows.py::test_gone"), "no test failed of 0"),
        (row("test_gone.py"), "no test failed of 0"),
        (row("test_at_the_top.py::test_limit", "return ("), "cannot be imported: SyntaxError"),
        (row("test_rows.py::test_limit", "return ("), "cannot be imported: SyntaxError"),
        (row("test_rows.py::test_program", "return ("), "cannot be imported: SyntaxError"),
        (row("test_at_the_top.py::test_limit", "LIMIT = None + 3", "LIMIT = 3"), "TypeError"),
        (row("test_rows.py::test_limit", "LIMIT = None + 3", "LIMIT = 3"), "TypeError"),
        (row("test_at_the_top.py::test_limit", "def is_large(", "def is_small("), "collection of"),
        (row("test_rows.py::test_setup"), "no test: setup of"),
        (row("test_rows.py::test_teardown"), "no test: teardown of"),
        (row("test_rows.py::test_skip"), "no test: skip of"),
        (row("test_rows.py::test_own_timeout"), "no test: timeout of"),
        (row("test_rows.py::test_leaves_early"), "status 1 before pytest did"),
        (row("test_rows.py::test_limit", check="return size <= LIMIT"), "the check no more"),
        (row("test_rows.py::test_limit", check="0"), "or twice"),
    ],
)
def test_whatever_else_goes_wrong_is_no_notice(case: Case, reason: str, rows: Mutants) -> None:
    with pytest.raises(AssertionError, match=reason):
        rows.check(case)


@pytest.mark.slow
def test_each_row_sees_its_own_mutation_and_the_next_one_the_original(rows: Mutants) -> None:
    unchanged = "return LIMIT > size"
    for _ in range(3):
        rows.check(row("test_rows.py::test_importer", "return size <LIMIT+1"))
        with pytest.raises(AssertionError, match="no test failed of 1"):
            rows.check(row("test_rows.py::test_importer", unchanged))


@pytest.mark.slow
def test_a_row_in_c_has_its_library_built_and_put_back(rows: Mutants) -> None:
    case = row("test_rows.py::test_library", "limit = 4", "limit = 3", "native/lib.c")
    rows.check(case)
    library = rows.source / "_lib.so"
    assert library.read_text() == f"{PACKAGE['native/lib.c']}\n"
    with pytest.raises(AssertionError, match="no test failed of 1"):
        rows.check(case._replace(without="limit = 3 "))


@pytest.mark.slow
def test_a_row_that_hangs_is_killed_with_its_programs_and_is_no_notice(
    rows: Mutants, pid_file: Path
) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        rows.check(row("test_rows.py::test_hangs"), seconds=5)
    pids = [int(pid) for pid in pid_file.read_text().split()]
    wait_until(lambda: not any(map(is_running, pids)))
    rows.check(row("test_rows.py::test_limit"))


@pytest.mark.slow
def test_a_server_whose_client_went_away_ends_with_its_row(root: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "pids"
    server = RowServer(root, tmp_path / "rows", {**os.environ, "PID_FILE": str(pid_file)})
    errors: list[str] = []

    def ask() -> None:
        try:
            server.run(["tests/test_rows.py::test_hangs"], module="", file=root, seconds=100)
        except RuntimeError as error:
            errors.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    assert server._process is not None
    assert server._process.stdin is not None
    server._process.stdin.close()
    asking.join(60)
    server.close()
    pids = [int(pid) for pid in pid_file.read_text().split()]
    wait_until(lambda: not any(map(is_running, pids)))
    assert [error.partition(":")[0] for error in errors] == ["the row server gave no answer"]


@pytest.mark.slow
def test_of_a_row_s_output_the_end_is_kept(root: Path, tmp_path: Path) -> None:
    server = RowServer(root, tmp_path / "rows", {**os.environ, "PYTHONPATH": str(root / "src")})
    result = server.run(
        ["-s", "tests/test_rows.py::test_much_output"], module="", file=root, seconds=60
    )
    server.close()
    assert not result.is_noticed
    assert len(result.said) <= 20_000
    assert "1 passed" in result.said
