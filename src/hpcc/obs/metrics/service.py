"""What every service counts, whatever it does."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable
from typing import Final

from hpcc.obs.health.health import Health
from hpcc.obs.metrics.registry import Registry, Words
from hpcc.ports import SecurityEvent

_SEVERITIES: Final = (
    (logging.ERROR, "ERROR"),
    (logging.WARNING, "WARN"),
    (logging.INFO, "INFO"),
    (logging.NOTSET, "DEBUG"),
)
# Methods of one service times the codes that they end with.
_MAX_CALLS: Final = 64
_MAX_EVENTS: Final = 64
# The field in which a limiter tells how many events of this kind it has only counted.
_SUPPRESSED: Final = "suppressed_before"
_MAX_SUPPRESSED_DIGITS: Final = 15


class ServiceMetrics:
    """The common part. A service adds its own metrics to the same registry.

    `health` is shown beside them; a process that a service manager started has one already.
    """

    def __init__(self, version: str, health: Health | None = None) -> None:
        self.health = health or Health()
        self.registry = registry = Registry()
        build = registry.gauge(
            "hpcc_build_info", "1, with the versions that run as labels.", "version", "python"
        )
        build.of(version, platform.python_version()).set(1.0)
        self._calls = registry.histogram(
            "hpcc_rpc_server_seconds",
            "How long calls took until their end; a stream is one call.",
            "rpc_method",
            "rpc_grpc_status_code",
            most=_MAX_CALLS,
        )
        self.loop_lag = registry.histogram(
            "hpcc_event_loop_lag_seconds", "How late the service's event loop wakes up."
        ).of()
        self._logged = registry.counter(
            "hpcc_log_events_total", "Log lines by severity.", "severity", most=len(_SEVERITIES)
        )
        for _, severity in _SEVERITIES:
            self._logged.of(severity)  # begins at 0: an alert sees the first error
        self._certificates = registry.asked_gauge(
            "hpcc_certificate_expires_timestamp_seconds",
            "When a certificate ends, since the epoch.",
            "what",
            most=8,
        )
        self._ends: dict[str, Callable[[], float]] = {}
        self._certificates.read = lambda: [((what,), at()) for what, at in self._ends.items()]
        self._events = registry.counter(
            "hpcc_security_events_total",
            "Security events by name (docs/spec/audit.md); those that a rate limit held back"
            " count when the next one is written.",
            "name",
            most=_MAX_EVENTS,
        )
        self._event_names = Words(_MAX_EVENTS)
        self.syslog_events = registry.asked_counter(
            "hpcc_syslog_events_total",
            "Security events for the syslog server of the config file: sent, or dropped because"
            " too many waited. A trail has them all.",
            "result",
            most=2,
        )
        self.otlp_events = registry.asked_counter(
            "hpcc_otlp_events_total",
            "Security events for the OTLP collector of the config file: sent, or dropped because"
            " too many waited or it refused them. A trail has them all.",
            "result",
            most=2,
        )

    def name_tenants(self, names: Iterable[str]) -> None:
        """Show these tenants by name, however many others are served before them."""
        for name in names:
            self.registry.tenants.known(name)

    def called(self, method: str, code: int, seconds: float) -> None:
        """Count a call of a served method; `code` is gRPC's number."""
        self._calls.of(method.removeprefix("/"), str(code)).observe(seconds)

    def logged(self, level: int) -> None:
        """Count a line of the log."""
        self._logged.of(next(name for least, name in _SEVERITIES if level >= least)).add()

    def security_event(self, name: str, count: int = 1) -> None:
        """Count a security event."""
        self._events.of(self._event_names.known(name)).add(count)

    def reported(self, event: SecurityEvent) -> None:
        """Count a security event, and those that its limiter held back before."""
        held = next((v for n, v in event.fields if n == _SUPPRESSED), "")
        is_number = held.isascii() and held.isdecimal() and len(held) <= _MAX_SUPPRESSED_DIGITS
        self.security_event(event.name, 1 + (int(held) if is_number else 0))

    def ends(self, what: str, at: Callable[[], float]) -> None:
        """Show when a certificate ends; `at` returns it in seconds since the epoch."""
        self._ends[what] = at


class LogCounter(logging.Handler):
    """Counts what is logged. It writes nothing."""

    def __init__(self, metrics: ServiceMetrics) -> None:
        super().__init__()
        self._metrics = metrics

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record."""
        self._metrics.logged(record.levelno)
