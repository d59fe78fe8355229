"""Rules, dashboards and the example configuration in deploy/monitoring, asked of a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hpcc.cli.cache.client_metrics import client_text
from hpcc.core import CallerError
from hpcc.gateway.metrics import GatewayMetrics
from hpcc.obs.metrics.admin import serve_admin
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.obs.metrics.text import CONTENT_TYPE
from hpcc.ports import SystemClock
from hpcc.scheduler.base.metrics import SchedulerMetrics
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc_testkit.farm.audit_rows import row
from hpcc_testkit.farm.in_process import farm_under_test
from hpcc_testkit.farm.several import EqualBuild, build_on, room
from hpcc_testkit.services.prometheus import Prometheus, missing_or_none, prometheus, promtool
from hpcc_testkit.services.promql import selectors
from hpcc_testkit.services.scraped import fetch

FOLDER = Path(__file__).resolve().parents[3] / "deploy/monitoring"
ADMIN = "127.0.0.1:0"
_SCRAPES = 40
CLIENT = {
    "hit.local": 9, "miss.remote.cached": 1, "miss.local": 1, "fallback.farm-down": 1,
    "missed.evicted": 1, "bypass.link": 1, "uncacheable.time-macro": 1, "remote-cache.found": 1,
    "store.size_bytes": 10, "saved.milliseconds": 100,
}  # fmt: skip
# Of a shared store, by which `hpcc.store.metered` counts.
STORE = {
    "get.calls": 5, "get.absent": 1, "get.failed.store-timeout": 1, "get.ms": 70, "get.bytes": 9,
    "put.calls": 2, "put.ms": 5, "put.bytes": 9, "has.calls": 1, "has.ms": 2,
}  # fmt: skip

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing_or_none()), reason=missing_or_none() or "it is here"),
]


def test_promtool_accepts_the_configuration_and_each_alert_does_as_its_test_says() -> None:
    promtool("check", "config", str(FOLDER / "prometheus.yml"))
    promtool("test", "rules", str(FOLDER / "hpcc.rules.test.yml"))


class EventfulServices:
    """The metrics of a scheduler, a worker and a gateway to which everything happens."""

    def __init__(self) -> None:
        self.scheduler = SchedulerMetrics("0.1", SystemClock())
        self.worker, self.gateway = WorkerMetrics("0.1"), GatewayMetrics("0.1")
        self.client, self.store = dict(CLIENT), dict(STORE)
        self.worker.read_stores(lambda: [self.store])
        self.worker.queue.read = lambda: [(("acme",), 1)]
        self.worker.store_open.read = lambda: [(("acme",), 1)]
        self.worker.sink_lag.read = lambda: [(("scheduler",), 1)]
        self.gateway.read(
            running=lambda: {"acme": 1},
            strangers=lambda: (1, 1),
            buffer=lambda: (1, 2),
            sessions=lambda: 1,
        )

    @property
    def services(self) -> tuple[ServiceMetrics, ...]:
        return self.scheduler.service, self.worker.service, self.gateway.service

    def happen(self) -> None:
        for error in (None, CallerError("no", reason="no-worker")):
            for counting in (self.scheduler.routing, self.scheduler.login, self.gateway.relaying):
                with suppress(CallerError), counting("acme"):
                    if error is not None:
                        raise error
        self.gateway.refused("relay-full")
        for status in ("executed", "hit", "joined", "abandoned"):
            self.worker.row(replace(row(), tenant="acme", cache_status=status, reason="guest-lost"))
        self.worker.waited("acme", 0.1)
        self.worker.store_called("get", 0.1)
        self.scheduler.store_call("put", 0.1, False)
        for service in self.services:
            service.called("/hpcc.v1.Service/Method", 13, 0.1)
            service.security_event("login-refused")
        for name in self.client:
            self.client[name] += 1
        for name in self.store:
            self.store[name] += 1


class _Collector(BaseHTTPRequestHandler):
    """Stands for a node exporter, which serves a file that `hpcc stats` wrote."""

    text: Callable[[], str]

    def do_GET(self) -> None:
        body = type(self).text().encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def collector(text: Callable[[], str]) -> Iterator[str]:
    kind = type("Collector", (_Collector,), {"text": staticmethod(text)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@asynccontextmanager
async def eventful() -> AsyncGenerator[tuple[list[str], str]]:
    """Yield the admin ports of services to which everything happens again and again.

    The second value is the address of a client machine's node exporter.
    """
    everything = EventfulServices()

    async def go_on() -> None:
        while True:
            everything.happen()
            await asyncio.sleep(0.1)

    async with AsyncExitStack() as stack:
        ports = [
            await stack.enter_async_context(serve_admin(ADMIN, service, SystemClock()))
            for service in everything.services
        ]
        task = asyncio.ensure_future(go_on())
        stack.callback(task.cancel)
        client = stack.enter_context(collector(lambda: client_text(everything.client, 100)))
        yield ports, client


def configuration(*targets: list[str]) -> dict[str, Any]:
    """Return the example that operators copy, with these targets, and quick."""
    config: dict[str, Any] = YAML(typ="safe").load((FOLDER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    for job, addresses in zip(config["scrape_configs"], targets, strict=True):
        job["static_configs"][0]["targets"] = addresses
    return config


def until(is_so: Callable[[], bool]) -> None:
    """Wait; the test's guard ends a wait that is in vain."""
    while not is_so():
        time.sleep(0.2)


def has_series(server: Prometheus, expression: str) -> bool:
    """Whether an expression has a series.

    A busy machine may answer one scrape without what is read on demand, so the next ones count, too.
    """
    for _ in range(_SCRAPES):
        if server.query(expression):
            return True
        time.sleep(0.5)
    return False


def check_answers(server: Prometheus, targets: int) -> None:
    def has_scraped() -> bool:
        # Rates need two scrapes of each target, and records an evaluation after those.
        found = server.query("min(count_over_time(up[1m])) >= 3 and count(up == 1)")
        counted = server.query("count(up == 1)")
        return bool(found) and counted[0][1] == targets

    until(has_scraped)
    until(lambda: bool(server.query("farm:hpcc_worker_compiles_lost:ratio_rate5m")))
    groups = server.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 30
    assert {r["name"]: r["lastError"] for r in rules if r["health"] != "ok"} == {}
    # No service here has a syslog server or a collector, and only one that has counts for it.
    asked = ("hpcc_syslog_events_total", "hpcc_otlp_events_total")
    silent = [
        selector.text
        for rule in rules
        for selector in selectors(rule["query"])
        if not selector.text.startswith(asked) and not has_series(server, selector.text)
    ]
    assert silent == [], "a rule selects what nobody shows"
    for file in FOLDER.glob("grafana/*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                expression = re.sub(r"\$(farm|instance)", ".*", target["expr"])
                expression = expression.replace("$__rate_interval", "10s")
                # What is left out while it is 0 has a series nevertheless.
                expression = expression.removesuffix(" > 0")
                assert has_series(server, expression), (file.stem, panel["title"], expression)


async def test_prometheus_scrapes_a_farm_and_every_rule_and_panel_has_an_answer(
    tmp_path: Path,
) -> None:
    async with (
        farm_under_test(tmp_path, admin=ADMIN, **room(2)) as farm,
        farm.serving() as worker,
        build_on(farm, name="one", build_class=EqualBuild) as build,
        eventful() as others,
    ):
        await build.run(range(4), jobs=2, seconds=0.01)
        services, client = [farm.scheduler.admin, worker.admin, *others[0]], others[1]
        for address in (*services, client):
            _, body = await asyncio.to_thread(fetch, address)
            await asyncio.to_thread(promtool, "check", "metrics", data=body)

        def ask() -> None:
            with prometheus(tmp_path, configuration(services, [client])) as server:
                check_answers(server, len(services) + 1)
                rows = f'sum(hpcc_worker_compiles_total{{instance="{worker.admin}"}})'
                assert server.query(rows)[0][1] == len(farm.audit.rows) == 4
                assert server.query('hpcc_scheduler_workers{state="live"} == 1')

        await asyncio.to_thread(ask)
