"""`hpcc worker install-service` and `uninstall-service`: the worker as a Windows service."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError, InfrastructureError

if TYPE_CHECKING:
    from hpcc.windows.library import Library

_HOST_NAME: Final = "hpcc-service.exe"
_STOP_SECONDS: Final = 60


def register_worker(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands below `hpcc worker`."""
    install = actions.add_parser(
        "install-service",
        help="install this worker as a service (Windows, as administrator)",
        description=_install.__doc__,
    )
    install.add_argument(
        "--config", dest="service_config", type=Path, required=True, metavar="FILE",
        help="the worker's JSON file, readable only by administrators",
    )  # fmt: skip
    install.add_argument(
        "--account", default="", metavar="NAME",
        help="an account without a password, in Administrators (default: LocalSystem)",
    )  # fmt: skip
    install.add_argument(
        "--stop-seconds", type=int, default=_STOP_SECONDS, metavar="N",
        help=f"how long a stop waits for running compiles (default: {_STOP_SECONDS})",
    )  # fmt: skip
    install.set_defaults(handler=_install)
    uninstall = actions.add_parser(
        "uninstall-service",
        help="stop and remove that service (Windows, as administrator)",
        description=_uninstall.__doc__,
    )
    uninstall.set_defaults(handler=_uninstall)


def _install(args: argparse.Namespace) -> int:
    """Install the service hpcc-worker, which starts with the system; it is not started now."""
    from hpcc.supervisor.windows_service import WorkerService, install_worker

    library = _library()
    config: Path = args.service_config
    if not config.is_absolute() or not config.is_file():
        raise CallerError(f"{config} is not the absolute path of a file", reason="usage")
    host = Path(sys.executable).with_name(_HOST_NAME)
    if not host.is_file():
        raise CallerError(
            f"{host} is missing; install the hpcc package again", reason="no-service-host"
        )
    spec = install_worker(
        library,
        WorkerService(
            host=str(host),
            python=sys.executable,
            config=str(config),
            data=os.environ.get("PROGRAMDATA", ""),
            account=args.account,
            stop_seconds=args.stop_seconds,
            code=_code(host),
        ),
    )
    emit(f"the service {spec.name} is installed; `sc.exe start {spec.name}` starts it")
    emit(f"it runs  {spec.command_line}")
    problem = _why_no_worker()
    if problem:
        emit(
            f"hpcc: the worker of this version does not run here ({problem}); "
            "the service will end at once, see docs/windows.md",
            file=sys.stderr,
        )
    return 0


def _code(host: Path) -> tuple[str, ...]:
    """Return from where the service runs code: programs, their directories, and those of modules.

    Each as it is named and with its links resolved.
    """
    programs = (host, Path(sys.executable), Path(getattr(sys, "_base_executable", sys.executable)))
    modules = [Path(name) for name in (sys.prefix, sys.base_prefix, *sys.path) if name]
    every = [*programs, *(path.parent for path in programs), *modules]
    there = [path for path in every if path.is_absolute() and path.exists()]
    return tuple(dict.fromkeys(str(p) for path in there for p in (path, path.resolve())))


def _uninstall(_args: argparse.Namespace) -> int:
    """Stop the service hpcc-worker in order and remove it; its config and log stay."""
    from hpcc.supervisor.windows_service import uninstall_worker

    uninstall_worker(_library())
    emit("the service is removed")
    return 0


def _library() -> Library:
    from hpcc.windows.library import load_library

    try:
        return load_library()
    except InfrastructureError as error:
        raise CallerError(
            "Windows services are installed on Windows; on this system use the systemd unit: "
            "docs/operate.md",
            reason="not-windows",
        ) from error


def _why_no_worker() -> str:
    try:
        import hpcc.worker.__main__  # noqa: F401 - only tests whether the import works
    except ImportError as error:
        return str(error)
    return ""
