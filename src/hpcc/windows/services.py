"""Creates, starts, stops and removes Windows services. Not yet run on Windows.

Sources: Win32 CreateServiceW, ChangeServiceConfig2W and the structures it takes, "Service
Security and Access Rights".
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from hpcc.core import CallerError, InfrastructureError
from hpcc.windows.library import Library, WindowsError, checked, memory, text

# SC_MANAGER_CONNECT, SC_MANAGER_CREATE_SERVICE
_MANAGER_RIGHTS: Final = 1 | 2
# CHANGE_CONFIG, QUERY_STATUS, START, STOP, DELETE
_SERVICE_RIGHTS: Final = 2 | 4 | 0x10 | 0x20 | 0x1_0000
_OWN_PROCESS: Final = 0x10
_AUTO_START: Final = 2
_ERROR_NORMAL: Final = 1
_CONTROL_STOP: Final = 1
_STOPPED: Final = 1
_DESCRIPTION, _FAILURE_ACTIONS, _DELAYED, _FAILURE_FLAG, _PRESHUTDOWN = 1, 2, 3, 4, 7
_NEEDED: Final = frozenset({_DESCRIPTION, _FAILURE_ACTIONS})
_ACTION_RESTART: Final = 1
_STATUS: Final = struct.Struct("<7I")
_POLL_SECONDS: Final = 0.2

_LOCKED_SECONDS: Final = 30.0
_INVALID_LEVEL: Final = 124
_DATABASE_LOCKED: Final = 1055
_NOT_ACTIVE: Final = 1062


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """The settings of a service.

    `command_line` begins with a quoted program. `account`: "" is LocalSystem, otherwise an account
    without a password, such as a service account or a managed one. `restart_seconds`: the delays
    before the manager restarts it after each failure; the last one applies to all further ones.
    """

    name: str
    display_name: str
    description: str
    command_line: str
    account: str = ""
    restart_seconds: tuple[int, ...] = (60, 300, 900)
    stop_seconds: int = 60


def install_service(library: Library, spec: ServiceSpec) -> None:
    """Create the service completely or not at all. It starts with the system, delayed.

    Raises:
        CallerError: it already exists (`service-exists`), this user may not create it
            (`not-elevated`), or the account does not exist (`bad-account`).
        WindowsError: the manager failed.
    """
    with _manager(library) as manager, ExitStack() as stack:
        words = [spec.name, spec.display_name, spec.command_line]
        name, display, line = (stack.enter_context(memory(library, text(w))) for w in words)
        account = stack.enter_context(memory(library, text(spec.account))) if spec.account else 0
        answer = library.call(
            "CreateServiceW", manager, name, display, _SERVICE_RIGHTS, _OWN_PROCESS, _AUTO_START,
            _ERROR_NORMAL, line, 0, 0, 0, account, 0,
        )  # fmt: skip
        if not answer.value:
            raise _refusal("CreateServiceW", answer.error, spec.name, spec.account)
        try:
            _configure(library, answer.value, spec)
        except WindowsError:
            library.call("DeleteService", answer.value)
            raise
        finally:
            library.call("CloseServiceHandle", answer.value)


def start_service(library: Library, name: str) -> None:
    """Ask the manager to start the service; does not wait until it runs.

    Raises:
        CallerError: there is no such service, or this user may not start it.
        WindowsError: it cannot be started.
    """
    with _manager(library) as manager, _service(library, manager, name) as service:
        deadline = time.monotonic() + _LOCKED_SECONDS  # noqa: TID251 - the manager's time, not ours to fake
        while True:
            answer = library.call("StartServiceW", service, 0, 0)
            if answer.value:
                return
            # While the manager starts other services, it rejects further starts.
            is_locked = answer.error == _DATABASE_LOCKED and time.monotonic() < deadline  # noqa: TID251 - as above
            if not is_locked:
                raise WindowsError("StartServiceW", answer.error)
            time.sleep(_POLL_SECONDS)  # noqa: TID251 - a command; there is no loop to block


def remove_service(library: Library, name: str, *, stop_seconds: float) -> None:
    """Stop the service, wait for its end, and remove it.

    Raises:
        CallerError: there is no such service (`no-service`), or this user may not remove it
            (`not-elevated`).
        InfrastructureError: it does not stop in time (`service-hangs`) and is kept.
    """
    with _manager(library) as manager, _service(library, manager, name) as service:
        with memory(library, bytes(_STATUS.size)) as at:
            asked = library.call("ControlService", service, _CONTROL_STOP, at)
        if not asked.value and asked.error != _NOT_ACTIVE:
            raise WindowsError("ControlService", asked.error)
        deadline = time.monotonic() + stop_seconds  # noqa: TID251 - the manager's time, not ours to fake
        while _state(library, service) != _STOPPED:
            if time.monotonic() > deadline:  # noqa: TID251 - as above
                raise InfrastructureError(
                    f"the service {name} did not stop in {stop_seconds:.0f} s and is kept",
                    reason="service-hangs",
                )
            time.sleep(_POLL_SECONDS)  # noqa: TID251 - a command; there is no loop to block
        checked(library, "DeleteService", service)


def _configure(library: Library, service: int, spec: ServiceSpec) -> None:
    count = len(spec.restart_seconds)
    actions = b"".join(struct.pack("<II", _ACTION_RESTART, s * 1000) for s in spec.restart_seconds)
    with (
        memory(library, text(spec.description)) as description,
        memory(library, actions) as list_at,
    ):
        # SERVICE_FAILURE_ACTIONS: after a day without a failure the first delay applies again.
        failure = struct.pack("<I4xQQI4xQ", 86_400, 0, 0, count, list_at)
        for kind, data in (
            (_DESCRIPTION, struct.pack("<Q", description)),
            (_FAILURE_ACTIONS, failure),
            # Also restart a service that stops by itself and reports a failure, as the host does.
            (_FAILURE_FLAG, struct.pack("<I", 1)),
            (_DELAYED, struct.pack("<I", 1)),
            (_PRESHUTDOWN, struct.pack("<I", (spec.stop_seconds + 10) * 1000)),
        ):
            with memory(library, data) as at:
                answer = library.call("ChangeServiceConfig2W", service, kind, at)
            # Settings that an older system or Wine does not know are skipped.
            if not answer.value and (answer.error != _INVALID_LEVEL or kind in _NEEDED):
                raise WindowsError("ChangeServiceConfig2W", answer.error)


def _state(library: Library, service: int) -> int:
    with memory(library, bytes(_STATUS.size)) as at:
        checked(library, "QueryServiceStatus", service, at)
        return int(_STATUS.unpack(library.load(at, _STATUS.size))[1])


@contextmanager
def _manager(library: Library) -> Iterator[int]:
    answer = library.call("OpenSCManagerW", 0, 0, _MANAGER_RIGHTS)
    if not answer.value:
        raise _refusal("OpenSCManagerW", answer.error, "", "")
    try:
        yield answer.value
    finally:
        library.call("CloseServiceHandle", answer.value)


@contextmanager
def _service(library: Library, manager: int, name: str) -> Iterator[int]:
    with memory(library, text(name)) as at:
        answer = library.call("OpenServiceW", manager, at, _SERVICE_RIGHTS)
    if not answer.value:
        raise _refusal("OpenServiceW", answer.error, name, "")
    try:
        yield answer.value
    finally:
        library.call("CloseServiceHandle", answer.value)


def _refusal(function: str, code: int, name: str, account: str) -> CallerError | WindowsError:
    """Return an error that says what the user can do. The numbers are from winerror.h."""
    match code:
        case 5:  # ERROR_ACCESS_DENIED
            return CallerError(
                "only an administrator may do this: use a PowerShell that was started as "
                "administrator",
                reason="not-elevated",
            )
        case 1060:  # ERROR_SERVICE_DOES_NOT_EXIST
            return CallerError(f"there is no service {name}", reason="no-service")
        case 1072:  # ERROR_SERVICE_MARKED_FOR_DELETE
            return CallerError(
                f"the service {name} is being removed; close all lists of services, then try again",
                reason="service-exists",
            )
        case 1073 | 1078:  # ERROR_SERVICE_EXISTS, ERROR_DUPLICATE_SERVICE_NAME
            return CallerError(
                f"the service {name} is there already; remove it first", reason="service-exists"
            )
        case 1057:  # ERROR_INVALID_SERVICE_ACCOUNT
            return CallerError(
                f"{account} is no account that a service can have without a password",
                reason="bad-account",
            )
        case _:
            return WindowsError(function, code)
