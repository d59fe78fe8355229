"""hpcc-service.exe under Wine: in a console, and as a service of Wine's service manager."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import CallerError, HpccError
from hpcc.windows.command_line import command_line
from hpcc.windows.files import prepare_system_directory
from hpcc.windows.library import WindowsError
from hpcc.windows.services import ServiceSpec, install_service, remove_service, start_service
from hpcc_testkit.cache.launcher import ROOT, build_windows_service, wait_until
from hpcc_testkit.windows.bridge import CONTROL_SERVICE, Bridge, bridge, build_bridge
from hpcc_testkit.windows.wine import Wine, cross_build

pytestmark = pytest.mark.timeout(500)
# Stands in for a worker: says its arguments, then leaves at the end of its input, or never, or at once.
_CHILD = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
int main(int argc, char **argv) {
    char byte, line[1200];
    for (int i = 1; i < argc; i++) printf("[%s]", argv[i]);
    printf("\n");
    fprintf(stderr, "to stderr\n");
    fflush(stdout);
    if (!strcmp(argv[1], "exits")) return atoi(argv[2]);
    if (!strcmp(argv[1], "talks")) {
        memset(line, 'x', sizeof line - 1);
        line[sizeof line - 1] = 0;
        for (int i = 0; i < 8; i++) printf("%d%s\n", i, line);
        return 2;
    }
    if (!strcmp(argv[1], "stays")) {
        STARTUPINFOA startup = {.cb = sizeof startup};
        PROCESS_INFORMATION other;
        snprintf(line, sizeof line, "\"%s\" sleeps", argv[0]);
        CreateProcessA(NULL, line, NULL, NULL, FALSE, 0, NULL, NULL, &startup, &other);
    }
    if (!strcmp(argv[1], "stays") || !strcmp(argv[1], "sleeps")) Sleep(300000);
    while (fread(&byte, 1, 1, stdin) == 1) continue;
    printf("left in order\n");
    return 0;
}
"""
_ODD = ["a b", 'a"b', "a\\", "c d\\", ""]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("service host")  # a space, as in Program Files
    fast = ("-DFIRST_PAUSE_MS=10", "-DMAX_LOG_BYTES=4000")
    build_windows_service(directory / "hpcc-service.exe", *fast)
    (directory / "child.c").write_text(_CHILD)
    cross_build(directory / "child.c", directory / "service-child.exe")
    cross_build(CONTROL_SERVICE, directory / "control.exe", "-ladvapi32")
    build_bridge(directory)
    return directory


@pytest.fixture(scope="module")
def manager(wine: Wine, programs: Path) -> Iterator[Bridge]:
    with bridge(wine, programs / "bridge.exe") as process:
        yield process


def windows(path: Path) -> str:
    return "Z:" + str(path).replace("/", "\\")


def host_argv(programs: Path, verb: str, log: Path, *child: str) -> list[str]:
    return [windows(programs / "hpcc-service.exe"), verb, "--log", windows(log), "--stop-seconds",
            "2", "--", windows(programs / "service-child.exe"), *child]  # fmt: skip


def spec(programs: Path, log: Path, *child: str) -> ServiceSpec:
    return ServiceSpec(
        name=f"hpcc-test-{child[0]}",
        display_name=f"hpcc test {child[0]}",
        description="for a test",
        command_line=command_line(host_argv(programs, "run", log, *child)),
    )


class Control:
    """A service that does nothing. If Wine cannot run it, a test of hpcc's host proves nothing.

    Wine's manager gives each service 10 s to start, which is not enough on a busy machine. A
    failure of hpcc's host looks the same, so it is excused only if the control service fails too.
    """

    def __init__(self, manager: Bridge, program: Path, directory: Path) -> None:
        self._manager, self._program, self._directory = manager, program, directory
        self._runs = 0

    def why_not(self) -> str:
        """Return why the control service did not start, run and stop now; "" when it did."""
        self._runs += 1
        mark = self._directory / f"ran-{self._runs}"
        service = ServiceSpec(
            name=f"hpcc-test-control-{self._runs}",
            display_name="hpcc test control",
            description="for a test",
            command_line=command_line([windows(self._program), windows(mark)]),
        )
        install_service(self._manager, service)
        try:
            started(self._manager, service, mark)
            wait_until(mark.exists, timeout_seconds=60)
            remove_service(self._manager, service.name, stop_seconds=60)
        except (WindowsError, HpccError, AssertionError) as error:
            return str(error)
        return ""

    @contextmanager
    def excuses(self) -> Iterator[None]:
        """Excuse a failure of hpcc's service if the control service fails as well."""
        try:
            yield
        except (WindowsError, AssertionError):
            if not (problem := self.why_not()):
                raise
            pytest.xfail(f"Wine's service manager runs no service at all: {problem}")


@pytest.fixture(scope="module")
def control(manager: Bridge, programs: Path) -> Control:
    """Start the control service first: where it fails, no test that needs the manager is run."""
    made = Control(manager, programs / "control.exe", programs)
    if problem := made.why_not():
        pytest.xfail(f"Wine's service manager runs no service at all: {problem}")
    return made


def started(manager: Bridge, service: ServiceSpec, mark: Path) -> None:
    """Start a service, and retry once if Wine's manager reports a failure.

    While it starts its own services it is locked (1055), and for the first start of any service it
    reports a timeout (1053) after 10 s although the service runs. `mark` is a file that the service
    makes: it is removed before each try, so that it belongs to the last one.
    """
    for tries_left in reversed(range(4)):
        mark.unlink(missing_ok=True)
        try:
            start_service(manager, service.name)
        except WindowsError:
            if not tries_left:
                raise
        else:
            return


def runs(manager: Bridge, service: ServiceSpec, log: Path) -> None:
    """Start hpcc's host as a service, and wait until it has reported that it runs.

    Before that report it accepts no control: a stop fails with Windows error 1052 or 1061.
    """
    started(manager, service, log)
    wait_until(lambda: log.exists() and "started process" in log.read_text(), timeout_seconds=60)


def console(wine: Wine, programs: Path, log: Path, *child: str) -> int:
    argv = host_argv(programs, "console", log, *child)
    return wine.run(programs / "hpcc-service.exe", *argv[1:], cwd=programs).returncode


def test_a_child_that_always_fails_is_started_again_and_then_given_up(
    wine: Wine, programs: Path, tmp_path: Path
) -> None:
    assert console(wine, programs, tmp_path / "log", "exits", "7") == 7
    text = (tmp_path / "log").read_text()
    assert text.count("[exits][7]") == 6
    assert text.count("to stderr") == 6
    assert "given up with status 7" in text


def test_a_child_that_was_told_something_wrong_is_not_started_again(
    wine: Wine, programs: Path, tmp_path: Path
) -> None:
    assert console(wine, programs, tmp_path / "log", "exits", "2") == 2
    assert (tmp_path / "log").read_text().count("[exits]") == 1


def test_a_program_that_is_not_there_is_said(wine: Wine, programs: Path, tmp_path: Path) -> None:
    done = wine.run(
        programs / "hpcc-service.exe", "console", "--log", windows(tmp_path / "log"), "--",
        "C:\\nowhere.exe", cwd=programs,
    )  # fmt: skip
    assert done.returncode == 2  # ERROR_FILE_NOT_FOUND
    assert "cannot start the program; Windows error 2" in (tmp_path / "log").read_text()


def test_logs_are_bounded(wine: Wine, programs: Path, tmp_path: Path) -> None:
    console(wine, programs, tmp_path / "log", "talks")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["log", "log.1"]
    assert all(f.stat().st_size <= 4000 for f in tmp_path.iterdir())
    assert "given up" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "arguments",
    [(), ("jump",), ("run",), ("run", "--"), ("console", "--stop-seconds", "0", "--", "x"),
     ("console", "--stop-seconds", "9999999999", "--", "x"), ("console", "--odd", "1", "--", "x")],
)  # fmt: skip
def test_nonsense_is_refused(wine: Wine, programs: Path, arguments: tuple[str, ...]) -> None:
    done = wine.run(programs / "hpcc-service.exe", *arguments, cwd=programs)
    assert done.returncode == 2
    assert b"install-service" in done.stderr


def test_a_service_runs_and_leaves_in_order(
    manager: Bridge, control: Control, programs: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    service = spec(programs, log, "waits", *_ODD)
    install_service(manager, service)
    with pytest.raises(CallerError) as caught:
        install_service(manager, service)
    assert caught.value.reason == "service-exists"
    with control.excuses():
        runs(manager, service, log)
    wait_until(lambda: "to stderr" in log.read_text(), timeout_seconds=60)
    with control.excuses():
        remove_service(manager, service.name, stop_seconds=60)
    text = log.read_text()
    assert "".join(f"[{word}]" for word in ["waits", *_ODD]) in text
    assert "left in order" in text
    assert "stopped with status 0" in text
    with pytest.raises(CallerError) as caught:
        remove_service(manager, service.name, stop_seconds=1)
    assert caught.value.reason == "no-service"


def test_a_service_that_does_not_leave_is_ended_with_all_that_it_started(
    wine: Wine, manager: Bridge, control: Control, programs: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    service = spec(programs, log, "stays")
    install_service(manager, service)
    with control.excuses():
        runs(manager, service, log)
    wait_until(lambda: bool(wine.processes("sleeps")), timeout_seconds=60)
    with control.excuses():
        remove_service(manager, service.name, stop_seconds=60)
    # The host, its child and the child's own child.
    wait_until(
        lambda: not wine.processes("stays") and not wine.processes("sleeps"), timeout_seconds=60
    )
    assert "did not leave in time" in log.read_text()


def test_a_host_that_crashes_early_is_no_fault_of_wines(
    manager: Bridge, control: Control, programs: Path, tmp_path: Path
) -> None:
    """The excuse above must not hide a crash of hpcc's host: Wine's manager reports both alike."""
    source = (ROOT / "launcher/hpcc_service.c").read_text()
    check = "    stop_event = CreateEventW("
    assert source.count(check) == 1
    shutil.copytree(ROOT / "launcher", tmp_path / "launcher")
    copy = tmp_path / "launcher/hpcc_service.c"
    copy.write_text(source.replace(check, f"    ExitProcess(3);\n{check}"))
    crashes = tmp_path / "crashes.exe"
    cross_build(copy, crashes, "-municode", "-ladvapi32")
    log = tmp_path / "log"
    argv = [windows(crashes), *host_argv(programs, "run", log, "waits")[1:]]
    service = replace(spec(programs, log, "crashes"), command_line=command_line(argv))
    install_service(manager, service)
    with pytest.raises(WindowsError), control.excuses():
        runs(manager, service, log)
    assert not log.exists()


def test_a_directory_that_somebody_made_first_is_not_used(manager: Bridge, wine: Wine) -> None:
    """Under Wine this user owns all directories and is not an administrator."""
    made = Path(wine.env["WINEPREFIX"], "drive_c/logs")
    made.mkdir()
    with pytest.raises(CallerError) as caught:
        prepare_system_directory(manager, "C:\\logs")
    assert caught.value.reason == "directory-owner"
    os.rmdir(made)
    prepare_system_directory(manager, "C:\\logs")
    assert made.is_dir()
