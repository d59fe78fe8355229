"""Runs a service's main: JSON lines on stdout, stopped by SIGTERM or the end of its parent.

The other half is `hpcc.supervisor`. Standard input is a pipe that never carries a byte; its end
means that the parent has exited. The same event loop sends what the service
does to a service manager that asks for it (systemd with `Type=notify`).
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import faulthandler
import json
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

from hpcc.core import CallerError, HpccError
from hpcc.obs.health.health import Health
from hpcc.obs.health.manager import ServiceManager
from hpcc.obs.health.messages import keep_notified
from hpcc.obs.logs import ServiceLog
from hpcc.obs.text import one_line
from hpcc.ports import SystemClock

_EXIT_CALLER: Final = 2
_MAX_STATUS_CHARS: Final = 500
# What a machine lacks, and no fault of the code: the message is enough, without a traceback.
_OF_THE_MACHINE: Final = {
    errno.ENOSPC: " (make room, or name another directory in the config file)",
    errno.EDQUOT: " (make room, or raise the quota)",
    errno.EROFS: " (name a directory that can be written in the config file)",
    errno.EACCES: " (the service's user needs it; the unit or the config file names another)",
    errno.EIO: " (the disk fails: see the kernel's log)",
    errno.EMFILE: " (raise LimitNOFILE)",
    errno.ENFILE: "",
    errno.ENOMEM: "",
}


class ServiceProcess:
    """The process as a service's main sees it: config path, status lines, and the stop request."""

    def __init__(self, config_path: Path, out: TextIO, log: ServiceLog) -> None:
        self.config_path, self.health, self.log = config_path, Health(), log
        self._out = out
        self._stop = asyncio.Event()
        # Called at a second signal: what the stop waits for shall end now.
        self.on_hurry: Callable[[], None] = lambda: None

    async def wait_stop(self) -> None:
        """Wait until a stop is requested."""
        await self._stop.wait()

    def stop(self) -> None:
        """Request an orderly stop."""
        self._stop.set()

    def signalled(self) -> None:
        """Request an orderly stop; the second time, a quick one."""
        if self._stop.is_set():
            self.on_hurry()
        self.stop()

    def progress(self, text: str) -> None:
        """Report a step of the start to the supervisor and the service manager."""
        self.health.starting(text)
        self.say({"progress": text})

    def ready(self, facts: Mapping[str, object]) -> None:
        """Report that the service is ready, with facts such as its port."""
        self.health.serving()
        self.say({"ready": True, **facts})

    def say(self, line: Mapping[str, object]) -> None:
        """Write one JSON line to stdout; if stdout is closed, request a stop."""
        try:
            self._out.write(json.dumps(line, sort_keys=True) + "\n")
            self._out.flush()
        except (BrokenPipeError, ValueError):
            self._stop.set()


def run_service(
    name: str, main: Callable[[ServiceProcess], Awaitable[None]], config: Path | None = None
) -> int:
    """Run a service's `main` until it returns; return the exit code.

    `config` is the config file; None takes it from the command line. A stop request cancels
    `main`, so that its resources are also released while it is starting.
    """
    path = config or _config_from_argv(name)
    log = ServiceLog(name, f"%(asctime)s {name} %(levelname)s %(message)s", os.environ)
    # Before anything is started, so that no child can speak for this service.
    manager = ServiceManager.taken_from(os.environ)
    if manager is not None and manager.watchdog_seconds:
        # The watchdog ends a loop that hangs with SIGABRT: the journal then shows where it was.
        faulthandler.enable()
    try:
        log.begin(logging.INFO)
        asyncio.run(_run(path, main, manager, log))
    except (HpccError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _OF_THE_MACHINE:
            raise
        text = str(error) if isinstance(error, HpccError) else fault_text(error)
        log.ended(text)
        if manager is not None:
            manager.send(f"STATUS=ended: {one_line(text)[:_MAX_STATUS_CHARS]}")
        return _EXIT_CALLER if isinstance(error, CallerError) else 1
    return 0


def fault_text(error: OSError) -> str:
    """Return what the machine lacks, where, and what to do."""
    where = f": {os.fsdecode(error.filename)}" if error.filename is not None else ""
    return f"{error.strerror}{where}{_OF_THE_MACHINE.get(error.errno or 0, '')}"


def _config_from_argv(name: str) -> Path:
    parser = argparse.ArgumentParser(prog=f"python -m hpcc.{name}")
    parser.add_argument("--config", type=Path, required=True, help="JSON file, mode 0600")
    path: Path = parser.parse_args().config
    return path


async def _run(
    path: Path,
    main: Callable[[ServiceProcess], Awaitable[None]],
    manager: ServiceManager | None,
    log: ServiceLog,
) -> None:
    process = ServiceProcess(path, sys.stdout, log)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        _on_signal(loop, number, process.signalled)
    _watch_parent(loop, process)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_owned(main, process), name="service")
            if manager is not None:
                work = keep_notified(manager, process.health, SystemClock())
                notifying = group.create_task(work, name="service manager")
                # Only now, so that the manager also hears of an end that takes long.
                task.add_done_callback(lambda _: notifying.cancel())
            await process.wait_stop()
            process.health.stopping()
            task.cancel()
    except BaseExceptionGroup as group:
        raise leaf_error(group) from None


def leaf_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first `HpccError` in a task group's failure, else what the machine lacks.

    A group with neither is returned as it is.
    """
    lacking: BaseException | None = None
    for error in group.exceptions:
        found = leaf_error(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, HpccError):
            return found
        if isinstance(found, OSError) and found.errno in _OF_THE_MACHINE:
            lacking = lacking or found
    return lacking or group


async def _owned(
    main: Callable[[ServiceProcess], Awaitable[None]], process: ServiceProcess
) -> None:
    try:
        await main(process)
    finally:
        process.stop()


def _on_signal(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, stop: Callable[[], None]
) -> None:
    try:
        loop.add_signal_handler(number, stop)
    except NotImplementedError:  # Windows: a process-wide handler, which may run in another thread
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


def _watch_parent(loop: asyncio.AbstractEventLoop, process: ServiceProcess) -> None:
    """Stop at the end of standard input, if it is a pipe that a parent holds."""
    descriptor = sys.stdin.fileno()
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return

    def on_input() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            process.stop()

    try:
        loop.add_reader(descriptor, on_input)
    except NotImplementedError:  # Windows can wait for a pipe only with a blocking read
        watch_in_thread(loop, descriptor, process.stop)


def watch_in_thread(
    loop: asyncio.AbstractEventLoop, descriptor: int, stop: Callable[[], None]
) -> threading.Thread:
    """Start a thread that reads a pipe, and call `stop` on the loop at the pipe's end."""

    def read() -> None:
        with suppress(OSError):
            while os.read(descriptor, 4096):
                continue
        with suppress(RuntimeError):  # the loop is already closed
            loop.call_soon_threadsafe(stop)

    thread = threading.Thread(target=read, name="hpcc-parent", daemon=True)
    thread.start()
    return thread
