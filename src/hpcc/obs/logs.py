"""Logs to stderr. Whatever a message holds, a line that begins a record is hpcc's own."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Final

from hpcc.core import CallerError
from hpcc.obs.secrets import hide_secrets
from hpcc.obs.text import plain

LOG_FORMATS: Final = ("text", "json", "auto")
LOG_FORMAT_VARIABLE: Final = "HPCC_LOG_FORMAT"
_CONTINUED = "\n    "
_log: Final = logging.getLogger(__name__)
# The first names of hpcc's loggers; the second is that of a module that a process was started with.
_OWN: Final = frozenset({"hpcc", "__main__"})


class PlainFormatter(logging.Formatter):
    """Escapes what a terminal obeys, and indents each line of a record but the first."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return _safe(super().format(record))


def _safe(text: str) -> str:
    """Return a text whose lines but the first are indented, without credentials or controls."""
    return plain(hide_secrets(text)).replace("\n", _CONTINUED)


def log_to_stderr(level: int, form: str | None = None) -> None:
    """Let this process log to stderr; `form` is a format string of `logging`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter(form or logging.BASIC_FORMAT))
    handler.addFilter(_is_kept)
    logging.basicConfig(handlers=[handler], level=level)


def _is_kept(record: logging.LogRecord) -> bool:
    """Keep warnings of libraries only: httpx notes each URL, and a URL's query may be a secret."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OWN


def check_log_format(name: str, value: str) -> None:
    """Refuse a format that does not exist; "" is none.

    Raises:
        CallerError: `value` is not one of `LOG_FORMATS`.
    """
    if value and value not in LOG_FORMATS:
        words = ", ".join(f'"{word}"' for word in LOG_FORMATS)
        raise CallerError(f"{name}: {value[:80]!r} is not one of {words}", reason="config")


class ServiceLog:
    """The log of a service's process: text, or JSON lines with the names of `obs.events`.

    The environment decides before the config file is read, and against it, so that one variable
    of a unit or a container makes also a complaint about that file a line of JSON.
    """

    def __init__(
        self, service: str, form: str, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """`form` is the format string of the text. Without an `environment` only a file decides."""
        self._service, self._form = service, form
        self._environment = environment
        self._is_json = False

    def begin(self, level: int) -> None:
        """Log from now on, as the environment says, or as text.

        Raises:
            CallerError: the variable names no format. The log is text then.
        """
        log_to_stderr(level, self._form)
        _log_what_python_writes()
        check_log_format(LOG_FORMAT_VARIABLE, self._chosen)
        self._switch(self._chosen)

    @property
    def _chosen(self) -> str:
        return self._environment.get(LOG_FORMAT_VARIABLE, "")

    def configured(self, log_format: str) -> None:
        """Log as a config file says, unless the environment says something."""
        if not self._chosen:
            self._switch(log_format)

    def ended(self, text: str) -> None:
        """Write why the service ends."""
        if self._is_json:
            _log.critical("the service ends: %s", text)
        else:
            sys.stderr.write(f"hpcc {self._service}: {_safe(text)}\n")

    def _switch(self, log_format: str) -> None:
        is_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
        if not is_json:
            return
        from hpcc.obs.json_lines import JsonFormatter  # late: a process that logs text needs none

        self._is_json = True
        for handler in logging.getLogger().handlers:
            if isinstance(handler.formatter, PlainFormatter):
                handler.setFormatter(JsonFormatter(self._service))


def _log_what_python_writes() -> None:
    """Let Python's own texts for stderr be records: uncaught errors and warnings.

    In text logs, too: the text of an error may come from a peer, and Python writes it as it is.
    """
    logging.captureWarnings(capture=True)

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if not issubclass(kind, Exception):
            sys.__excepthook__(kind, error, trace)
            return
        _log.critical("the service ends, an error was not handled", exc_info=(kind, error, trace))

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or issubclass(args.exc_type, SystemExit):
            return
        name = args.thread.name if args.thread is not None else "?"
        found = args.exc_type, args.exc_value, args.exc_traceback
        _log.error("thread %s ends, an error was not handled", name, exc_info=found)

    def in_finalizer(args: sys.UnraisableHookArgs) -> None:
        error = args.exc_value or args.exc_type()
        found = args.exc_type, error, args.exc_traceback
        # Not the object itself: its text may fail once more.
        where = type(args.object).__qualname__
        _log.error("an error while an object was freed is ignored: %s", where, exc_info=found)

    sys.excepthook, threading.excepthook = uncaught, in_thread
    sys.unraisablehook = in_finalizer
