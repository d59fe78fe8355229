"""Installs and removes hpcc's worker as a Windows service.

The service's program is hpcc-service.exe, which talks to the service manager and runs the worker
as its child (launcher/hpcc_service.c). Not yet run on Windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpcc.core import CallerError, parse_windows_path
from hpcc.windows.command_line import command_line
from hpcc.windows.files import prepare_system_directory
from hpcc.windows.library import Library
from hpcc.windows.services import ServiceSpec, install_service, remove_service
from hpcc.windows.users import is_elevated
from hpcc.windows.writers import check_programs

WORKER_SERVICE: Final = "hpcc-worker"
DEFAULT_STOP_SECONDS: Final = 60
MAX_STOP_SECONDS: Final = 3600
LOG_DIRECTORY: Final = ("hpcc", "logs")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerService:
    """The service's paths, which all begin with a drive, and its account.

    `code` are further files and directories from which it runs code. `data` is %ProgramData%. An
    `account` of "" means LocalSystem, which may call containerd.
    """

    host: str
    python: str
    config: str
    data: str
    account: str = ""
    stop_seconds: int = DEFAULT_STOP_SECONDS
    code: tuple[str, ...] = ()


def worker_spec(service: WorkerService) -> ServiceSpec:
    """Return the service's entry for the service manager.

    Raises:
        CallerError: a path is not on a drive of this machine, or the time is out of range.
    """
    host, python, config = (
        str(parse_windows_path(path)) for path in (service.host, service.python, service.config)
    )
    if not 0 < service.stop_seconds <= MAX_STOP_SECONDS:
        raise CallerError(
            f"--stop-seconds must be between 1 and {MAX_STOP_SECONDS}", reason="usage"
        )
    directories = _log_directories(service)
    argv = [
        host, "run", "--log", f"{directories[-1]}\\worker.log",
        "--stop-seconds", str(service.stop_seconds), "--",
        # -I: no environment variable and no user's directory decides what the service imports.
        python, "-I", "-m", "hpcc.cli", "worker", "--config", config,
    ]  # fmt: skip
    return ServiceSpec(
        name=WORKER_SERVICE,
        display_name="hpcc worker",
        description="Runs compiles of an hpcc farm in containers.",
        command_line=command_line(argv),
        account=service.account,
        stop_seconds=service.stop_seconds,
    )


def install_worker(library: Library, service: WorkerService) -> ServiceSpec:
    """Create the log's directory and the service; does not start it. Returns the entry.

    Raises:
        CallerError: the caller is not an administrator, somebody else may change what the service
            runs, another account owns the log's directory, or as `worker_spec` and
            `install_service`.
    """
    spec = worker_spec(service)
    _check_rights(library)
    check_programs(library, (service.host, service.python, service.config, *service.code))
    for directory in _log_directories(service):
        prepare_system_directory(library, directory)
    install_service(library, spec)
    return spec


def uninstall_worker(library: Library, stop_seconds: float = DEFAULT_STOP_SECONDS) -> None:
    """Stop the service and remove it; its config and its log stay.

    Raises:
        CallerError: there is no such service, or the caller is not an administrator.
        InfrastructureError: the service does not stop.
    """
    _check_rights(library)
    remove_service(library, WORKER_SERVICE, stop_seconds=stop_seconds)


def _check_rights(library: Library) -> None:
    if not is_elevated(library):
        raise CallerError(
            "only an administrator may do this: use a PowerShell that was started as administrator",
            reason="not-elevated",
        )


def _log_directories(service: WorkerService) -> list[str]:
    found = str(parse_windows_path(service.data))
    directories = []
    for name in LOG_DIRECTORY:
        found = f"{found}\\{name}"
        directories.append(found)
    return directories
