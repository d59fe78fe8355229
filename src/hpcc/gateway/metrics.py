"""What a gateway shows at its admin port. docs/metrics.md is generated from here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from hpcc.core import HpccError
from hpcc.obs.health.health import Health
from hpcc.obs.metrics.registry import Words
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.rpc.relay.link import RelayedError

# Why calls are refused or fail: words of this code, of the scheduler and of checks of tokens.
_MAX_REASONS: Final = 32
_MAX_RESULTS: Final = 512


class GatewayMetrics:
    """All metrics of a gateway. Those that are read on demand get their readers in `serve`."""

    def __init__(self, version: str, health: Health | None = None) -> None:
        self.service = ServiceMetrics(version, health)
        registry = self._registry = self.service.registry
        self._reasons = Words(_MAX_REASONS)
        self._calls = registry.counter(
            "hpcc_gateway_calls_total",
            "Calls of callers whose token was accepted, by how they ended: ok, worker (the worker's"
            " error was passed on), cancelled (by the caller), or why the gateway failed them.",
            "tenant",
            "result",
            most=_MAX_RESULTS,
        )
        self._refused = registry.counter(
            "hpcc_gateway_refusals_total",
            "Calls that were refused because of their caller, by reason. The log has at most twenty"
            " lines a second of them.",
            "reason",
        )
        self.workers_lost = registry.counter(
            "hpcc_gateway_workers_lost_total",
            "Calls whose worker was lost; most of them succeed at another worker.",
        ).of()
        self._running = registry.asked_gauge(
            "hpcc_gateway_calls",
            "Calls in progress of callers whose token was accepted. An execution is one call for"
            " its whole duration.",
            "tenant",
        )
        self._strangers = registry.asked_gauge(
            "hpcc_gateway_strangers",
            "Calls whose token was not accepted yet: reading (their message is on its way), waiting"
            " (for a place to be read).",
            "state",
            most=2,
        )
        self._sessions = registry.asked_gauge(
            "hpcc_gateway_sessions", "Tokens that were accepted and are remembered."
        )
        self._buffer = registry.asked_gauge(
            "hpcc_gateway_buffer_bytes", "Memory that is reserved for messages."
        )
        self._buffer_limit = registry.asked_gauge(
            "hpcc_gateway_buffer_limit_bytes",
            "Memory that may be reserved for messages (max_buffer_bytes); a tenant has half of it"
            " at most.",
        )

    @contextmanager
    def relaying(self, tenant: str) -> Iterator[None]:
        """Count a call. `tenant` is that of an accepted token."""
        result = "ok"
        try:
            yield
        except HpccError as error:
            result = self._reasons.known(error.reason)
            raise
        except RelayedError:
            result = "worker"
            raise
        except (asyncio.CancelledError, GeneratorExit):
            result = "cancelled"
            raise
        except BaseException:
            result = "internal"
            raise
        finally:
            self._calls.of(self._registry.tenants.known(tenant), result).add()

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._refused.of(self._reasons.known(reason)).add()

    def read(
        self,
        *,
        running: Callable[[], Mapping[str, int]],
        strangers: Callable[[], tuple[int, int]],
        buffer: Callable[[], tuple[int, int]],
        sessions: Callable[[], int],
    ) -> None:
        """Set what is read on demand.

        `running` returns calls by tenant, `strangers` those that are read and those that wait,
        `buffer` the bytes that are reserved and that may be.
        """
        known = self._registry.tenants.known
        self._running.read = lambda: [((known(t),), n) for t, n in running().items()]
        self._strangers.read = lambda: [
            ((state,), n) for state, n in zip(("reading", "waiting"), strangers(), strict=True)
        ]
        self._buffer.read = lambda: [((), buffer()[0])]
        self._buffer_limit.read = lambda: [((), buffer()[1])]
        self._sessions.read = lambda: [((), sessions())]
