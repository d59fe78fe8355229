"""A farm of invented data behind the real pages of `hpcc web`, for pictures and browser tests.

No scheduler and no worker runs. The data are plausible and always the same, so that a picture of a
page changes only if the page does.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpcc.cache.recorder.places import DIRECTORY_NAME
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cli.base.farm_object import CheckState, FarmObject, ObjectCheck
from hpcc.cli.web.farm_site import FarmSite
from hpcc.cli.web.parts.shell import HEADERS
from hpcc.cli.web.session import BrowserSession
from hpcc.cli.web.site import Site
from hpcc.config.farm import Farm
from hpcc.core import Digest, NotFoundError
from hpcc.core.build_lanes import AS_PLACE, INSTEAD, LaneSpan, lanes_of_spans
from hpcc.core.build_summary import Activity, BuildSummary, CauseTally, SlowCompile, Tally
from hpcc.obs.http.serve import MAX_HEAD_BYTES, BoundedServer, listen
from hpcc.ports import SystemClock
from hpcc.reapi.result import ResultSignature
from hpcc.routing.load import SAMPLE_SECONDS, Load, LoadSample
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.builds import FarmBuild, KeptBuild, KeptBuilds
from hpcc.rpc.scheduler.farm_picture import FarmPicture, picture_of
from hpcc.rpc.scheduler.observe import RouteCount, TenantStatus
from hpcc.rpc.scheduler.recent_events import SeenEvent, SeenEvents
from hpcc.rpc.scheduler.worker_detail import TenantPlaces, WorkerDetail, WorkerImage
from hpcc_testkit.cache.recorded import AT_US, earlier_build, small_build
from hpcc_testkit.guests.objects import ACTION, IMAGE, farm_object
from hpcc_testkit.services.builds import kept_builds
from hpcc_testkit.services.pictures import status, worker

# 2026-11-30 06:29:30 UTC.
NOW: Final = AT_US / 1e6 + 1770.0
MACHINE_BUILD: Final = "release-7"
EARLIER_BUILD: Final = "release-6"
OBJECT: Final = f"object/{ACTION.hash}-{ACTION.size_bytes}"
_OTHERS: Final = ("parity", "no-worker", "worker-gone")
_ISOLATIONS: Final = ("firecracker/kvm", "qemu/kvm")
_BUSY: Final = (15, 9, 16, 12, 3, 6)
_EVENTS: Final[tuple[tuple[float, str, str, str, tuple[tuple[str, str], ...]], ...]] = (
    (130, "login-refused", "", "ipv4:10.1.4.77:51422",
     (("reason", "idp-token-expired"), ("claimed", "globex"))),
    (1_210, "worker-drain-ordered", "", "", (("worker", "w5"), ("by", "ann"),
                                             ("reason", "kernel update"))),
    (5_400, "route-refused", "initech", "ipv4:10.1.4.12:40110", (("reason", "image"),)),
    (90_500, "enrol-token-replayed", "", "ipv4:10.1.0.19:39944",
     (("reason", "enrol-token-replayed"), ("worker", "w3"))),
)  # fmt: skip

_WORKER_EVENTS: Final[tuple[tuple[float, str, str, str, tuple[tuple[str, str], ...]], ...]] = (
    (1_290, "w2", "guest-lost-in-compile", "acme", (("cause", "guest-silent"),
                                                    ("guest", "7f3a0291c0de02"))),
    (1_292, "w2", "guest-lost", "", (("guest", "7f3a0391c0de02"), ("reason", "guest-silent"))),
    (6_940, "w3", "snapshot-damaged", "", (("file", "memory"),)),
    (84_100, "w5", "token-refused", "globex", (("reason", "route-token-expired"),)),
)  # fmt: skip


class DemoClock(SystemClock):
    """Stands still for people, and goes for timers."""

    def now(self) -> float:
        return NOW


class DemoFarm:
    """What `hpcc web` asks: schedulers, and a worker that has one object.

    A member is `ann` of acme. The operator is `olga`.
    """

    def __init__(self, *, operator: bool = True) -> None:
        self._operator = operator
        self._builds = _builds(None if operator else "acme")

    def farm(self) -> Farm:
        return Farm(
            scheduler="s1.farm-1.example:7443,s2.farm-1.example:7443",
            scheduler_certificate_pem="", tenant="acme",
            principal="olga" if self._operator else "ann", secret="", image=str(IMAGE),
            isolation="firecracker/kvm",
        )  # fmt: skip

    async def picture(self) -> FarmPicture:
        workers = tuple(
            worker(
                f"w{number}", endpoint=f"10.1.0.1{number}:7445", capacity=16, running=busy,
                isolation=_ISOLATIONS[number == 6],
                version="0.3.9" if number == 5 else "0.4.0", load=busy / 16.6,
                up_seconds=(40 if number == 5 else 12) * 86_400.0 if number != 2 else 1_390.0,
                heard_seconds=1.0 + number % 2, store_bytes=(38 + busy * 2) << 30,
                store_limit_bytes=120 << 30, queued=2 if busy > 14 else 0, images=3,
                wait_p95_seconds=2.4 if busy > 14 else 0.03 * busy, waits=70 * busy,
                lost_guests=0.6 if number == 2 else 0.0,
                **(
                    {"drain": "draining", "drain_seconds": 40.0, "drain_by": "ann",
                     "drain_reason": "kernel update"}
                    if number == 5 else {}
                ),
            )
            for number, busy in enumerate(_BUSY, start=1)
        )  # fmt: skip
        tenants = (
            _tenant("acme", 21, 41, 64),
            _tenant("globex", 9, 17, 32),
            _tenant("initech", 4, 3, 3),
        )
        own = tenants if self._operator else tenants[:1]
        said = status(
            *(workers if self._operator else ()), tenants=own, is_operator=self._operator,
            live=5, draining=1, version="0.4.0", at=NOW,
        )  # fmt: skip
        addresses = self.farm().scheduler.split(",")
        return picture_of(addresses, (said, said), tenant="acme", at=NOW)

    async def history(self) -> tuple[LoadSample, ...]:
        return tuple(
            LoadSample(
                NOW - (360 - n) * SAMPLE_SECONDS,
                Load(
                    live=5 if n > 300 else 6, draining=1 if n > 300 else 0,
                    capacity=80 if n > 300 else 96,
                    running=round(48 + 18 * math.sin(n / 31) + 9 * math.sin(n / 7)),
                    queued=max(round(9 * math.sin(n / 23)), 0),
                ),
            )
            for n in range(0, 361, 3)
        )  # fmt: skip

    async def events(self) -> SeenEvents:
        return SeenEvents(
            NOW - 400_000.0,
            tuple(
                SeenEvent(name=name, at=NOW - ago, tenant=tenant, peer=peer, fields=fields)
                for ago, name, tenant, peer, fields in _EVENTS
            ),
            of_workers=tuple(
                SeenEvent(name=name, at=NOW - ago, tenant=tenant, fields=fields, worker=worker_id)
                for ago, worker_id, name, tenant, fields in _WORKER_EVENTS
            ),
        )

    async def worker(self, worker_id: str) -> WorkerDetail:
        del worker_id
        images = tuple(
            WorkerImage(f"sha256:{digest * 32}", compilers)
            for digest, compilers in (
                ("4b", ("clang 19.1.7", "clang++ 19.1.7")), ("9c", ("gcc 14.2.0", "g++ 14.2.0")),
                ("e1", ("gcc 13.3.0",)),
            )
        )  # fmt: skip
        places = (
            TenantPlaces(tenant="acme", wanted=12, granted=9, held=9, principals=3),
            TenantPlaces(tenant="globex", wanted=6, granted=6, held=6, principals=2),
        )
        return WorkerDetail(images, places)

    async def builds(self) -> KeptBuilds:
        return kept_builds(*(_head(b) for b in self._builds), since=NOW - 86_400.0)

    async def build(self, build_id: str) -> FarmBuild:
        found = tuple(b for b in self._builds if b.build_id == build_id)
        if not found:
            raise NotFoundError("no build of this id is known to the farm")
        return FarmBuild(build_id=build_id, reports=found)

    async def object(self, action: Digest) -> FarmObject:
        if action != ACTION:
            raise NotFoundError("no worker has a result of this action that may serve you")
        return _object()


def _tenant(name: str, daemons: int, granted: int, wanted: int) -> TenantStatus:
    routes = (RouteCount("image", 4), RouteCount("no-worker", 35), RouteCount("ok", 4_212))
    return TenantStatus(
        tenant=name, daemons=daemons, granted=granted, wanted=wanted, principals=daemons // 2,
        routes=routes,
    )  # fmt: skip


def _builds(only: str | None) -> list[KeptBuild]:
    """Return a day of builds, the last report first: many in the last hour, fewer before."""
    names = (
        ("firmware-core", "acme", "ann"), ("browser", "acme", "ci-main"),
        ("llvm-project", "globex", "raj"), ("billing-engine", "initech", "mia"),
        ("firmware-core", "acme", "ci-nightly"), ("kernel", "globex", "tom"),
    )  # fmt: skip
    found = []
    for number in range(40):
        name, tenant, who = names[number % len(names)]
        ago = number * 120 if number < 30 else 3600 + (number - 30) * 6400
        if only in {None, tenant}:
            found.append(_build(f"{name}/{1658 - number}", tenant, who, ago, number))
    return found


def _build(name: str, tenant: str, who: str, ago: int, number: int) -> KeptBuild:
    size = 300 + 37 * (number * 7 % 29)
    lost = 9 if 11 <= number <= 13 else 1
    hits, farm = size * (62 + number * 5 % 30) // 100, size * 8 // 100 + number % 9
    instead, here = lost * (3 + number % 4), number % 5
    took_ms = 60_000 + size * 110
    ended_ms = round((NOW - ago - 4) * 1000)
    causes = (
        CauseTally("missed", "inputs-changed", farm - farm // 4, farm * 2600),
        CauseTally("missed", "new-command", farm // 4 + here, farm * 700),
        CauseTally("missed", "evicted", 2 + number % 7, 9_000),
        CauseTally("fallback", "guest-lost", instead - instead // 3, 3_000 * instead),
        CauseTally("fallback", _OTHERS[number % 3], instead // 3, 900),
        CauseTally("bypass", "link", 3 + number % 3, 0),
    )  # fmt: skip
    slowest = tuple(
        SlowCompile(
            900 + 11_000 * n, (58_300 - 900 * (number % 40)) // (n + 1), "farm",
            ("inputs-changed", "new-command")[n % 2], f"w{1 + (number + n) % 6}",
            f"7f3a0{n}91c0de{number:02}",
        )
        for n in range(8)
    )  # fmt: skip
    places = (
        *(Tally(f"w{n}", farm // 6 + n, (farm // 6 + n) * 3_900) for n in (1, 3, 4, 6)),
        Tally("", here + instead, 3_000 * (here + instead)),
    )
    spans = [span for tally in places for span in _spans(tally, took_ms, number)]
    lanes, off_lanes = lanes_of_spans(spans, 0, took_ms, [tally.word for tally in places])
    summary = BuildSummary(
        build=name, source=f"{number:016x}", began_ms=ended_ms - took_ms, ended_ms=ended_ms,
        commit="9c02e7a14be1" + "0" * 28, busy_ms=took_ms - 900, total_ms=farm * 4_100,
        at_once=64,
        kinds=tuple(
            tally
            for tally in (
                Tally("hit", hits - 41, 900), Tally("farm-cache", 41, 4_100),
                Tally("farm", farm, farm * 3_900),
                Tally("here", here + instead, 3_000 * (here + instead)),
                Tally("failed", number % 11 == 5, 800), Tally("bypass", 3 + number % 3, 26),
            )
            if tally.compiles
        ),
        causes=causes,
        phases=(
            Tally("classify", 0, 3_000), Tally("look-up", 0, 9_000), Tally("farm", 0, farm * 3_900),
            Tally("queue", 0, farm * 210), Tally("guest", 0, farm * 3_500),
            Tally("place", 0, 12_000),
        ),
        places=places, lanes=lanes, off_lanes=off_lanes,
        slowest=slowest,
        activity=tuple(
            Activity(
                round(hits / 30 * math.exp(-n / 14) * (1.2 + math.sin(n * 1.7))),
                round(farm * 3_900 / 48 * (1.6 - n / 34 + 0.2 * math.sin(n))),
                9_000 if n in (4, 11) else 900, 8_000 if n in (4, 11) else 0,
            )
            for n in range(48)
        ),
    )  # fmt: skip
    return KeptBuild(
        tenant=tenant, principal=who, client_version="0.4.0", reported_at=NOW - ago,
        summary=summary,
    )  # fmt: skip


def _spans(tally: Tally, took_ms: int, number: int) -> list[LaneSpan]:
    """Return what ran at a place: most at the begin, less towards the end."""
    chance = random.Random(f"{tally.word} {number}")  # noqa: S311 - invented, always the same
    found = []
    for _ in range(tally.compiles):
        took = min(chance.lognormvariate(8.6 if tally.word else 8.0, 0.8), took_ms * 0.4)
        began = (took_ms - took) * chance.random() ** 1.5
        end = AS_PLACE if tally.word or chance.random() < 0.2 else INSTEAD
        found.append(LaneSpan(tally.word, int(began), int(began + took), 1, end))
    return found


def _head(build: KeptBuild) -> KeptBuild:
    return KeptBuild(
        tenant=build.tenant, principal=build.principal, client_version=build.client_version,
        reported_at=build.reported_at, summary=build.summary.head(),
    )  # fmt: skip


def _object() -> FarmObject:
    holds = CheckState.HOLDS
    shown = farm_object(
        kernel_digest="sha256:" + "e7aa" * 16, agent_digest="sha256:" + "30b2" * 16,
        lineage_digest="sha256:" + "11fd" * 16, queued_at=NOW - 900, started_at=NOW - 899.96,
        completed_at=NOW - 841.6,
        signature=ResultSignature("5c0e" * 8, round((NOW - 841.4) * 1000), b"s" * 64),
    )  # fmt: skip
    checks = (
        ObjectCheck("Signature", holds, "by a key that the scheduler lists, over tenant, action, "
                    "outputs and how it was made", "key " + "5c0e" * 8),
        ObjectCheck("Bytes", holds, "the SHA-256 of each output is its name", "1 of them, 6 bytes"),
        ObjectCheck("Class", holds, "its guest had executed nothing before", "fresh"),
        ObjectCheck("Isolation", holds, "at least the tenant's minimum",
                    "firecracker/kvm; qemu/kvm"),
        ObjectCheck("Guest", holds, "had executed 0 before; reuse principal", "w1-g6"),
        ObjectCheck("Toolchain", holds, "the image of your login", IMAGE.digest.value),
        ObjectCheck("Other executions", holds, "this worker knows none that gave another result"),
        ObjectCheck("Audit row", CheckState.UNKNOWN, "in the trail of worker w1: named in what is "
                    "signed; look there with the commands below", "0123456789abcdef" * 2),
    )  # fmt: skip
    return FarmObject(
        tenant="acme", action=ACTION, record=shown.record, asked="w1", spec=shown.spec,
        command=shown.command, checks=checks,
    )  # fmt: skip


@contextmanager
def demo_pages(directory: Path, *, operator: bool = True) -> Iterator[str]:
    """Serve the pages on loopback from a thread; yield the link."""
    recorder = Recorder(str(directory / DIRECTORY_NAME), lambda: AT_US / 1e6)
    for c in earlier_build().compiles:
        recorder.add(EARLIER_BUILD, c)
    for c in small_build().compiles:
        recorder.add(MACHINE_BUILD, c)
    recorder.flush()
    session, farm = BrowserSession(), DemoFarm(operator=operator)
    site = Site(
        str(directory), session, DemoClock(), FarmSite(farm, farm, session.root, DemoClock())
    )
    loop, ready = asyncio.new_event_loop(), threading.Event()
    listener = listen("demo", "127.0.0.1", 0)
    port = listener.getsockname()[1]
    end = asyncio.Event()

    async def serve() -> None:
        bounded = BoundedServer(
            site.answer, lambda _: "page", loopback_only=True, answer_seconds=60.0, always=HEADERS
        )
        server = await asyncio.start_server(bounded.connected, sock=listener, limit=MAX_HEAD_BYTES)
        ready.set()
        await end.wait()
        server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="demo pages")
    thread.start()
    try:
        if not ready.wait(60):
            raise UnavailableError("the pages do not start")
        yield f"http://127.0.0.1:{port}{session.link}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(60)
        loop.close()
