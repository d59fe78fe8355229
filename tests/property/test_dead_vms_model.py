"""The race around a dead VM: crash, notice, heartbeat, answer and dial in any order.

The scheduler's registry and watchers and the whole dispatcher are real, including its connection to
the farm, its route table and its re-route. The network, the workers and time are simulated. The
state machine decides when messages arrive (in order within a stream, in any order between streams),
and its clock is the loop's clock.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import hpcc.dispatch.calls as dispatch_calls
from hpcc.config.farm import Farm
from hpcc.core import (
    Digest,
    GuestReuse,
    HpccError,
    ImageDigest,
    ImageRef,
    Isolation,
    NotFoundError,
    RemoteRequest,
    TenantId,
)
from hpcc.dispatch.calls import DIAL_SECONDS
from hpcc.dispatch.channels import RoutedWorker
from hpcc.dispatch.compile import Dispatcher, PreparedAction
from hpcc.dispatch.farm import FarmConnection
from hpcc.dispatch.routes import Lane
from hpcc.ports import GuestLostError
from hpcc.routing.fleet import RouteRequest
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.api import (
    WATCHING,
    Beat,
    Registration,
    Route,
    RouteAsk,
    RouteChange,
    SessionGrant,
)
from hpcc.scheduler.registry import WorkerRegistry
from hpcc.scheduler.registry_row import Worker
from hpcc.scheduler.watchers import Watcher, Watchers
from hpcc_testkit.suite.examples import examples

IMAGE = ImageRef("test/gcc", ImageDigest("sha256:" + "ab" * 32))
LEASE = 10.0
NAMES = ("w1", "w2", "w3")
CAPACITY = 2
TENANT = TenantId("acme")
# Rounds of the loop in which everything that can go on has gone on.
ROUNDS = 40
MAX_COMPILES = 12


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time advances only when the machine advances it."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.at = 1000.0

    def time(self) -> float:
        return self.at


class Clock:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def now(self) -> float:
        return self._loop.at

    def monotonic(self) -> float:
        return self._loop.at

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class SimulatedWorker:
    """A worker's machine: off, or with a guest that runs, or with an unreported crashed guest."""

    name: str
    is_on: bool = True
    is_guest_alive: bool = True
    # Calls that wait, and the generation of their route.
    calls: dict[asyncio.Future[None], int] = field(default_factory=dict)


class Network:
    """The messages in transit between daemon, scheduler and workers."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        clock = Clock(loop)
        self.registry = WorkerRegistry(clock, LEASE)
        self.watchers = Watchers()
        self.workers = {n: SimulatedWorker(n) for n in NAMES}
        # Answers and news that have been sent and have not arrived.
        self.answers: deque[tuple[asyncio.Future[Route], Route | HpccError]] = deque()
        self.news: deque[tuple[asyncio.Queue[RouteChange | None], RouteChange | None]] = deque()
        self.notices: deque[str] = deque()

    def register(self, name: str) -> None:
        gone = self.registry.remove(name)
        self.registry.register(
            Registration(
                worker_id=name, endpoint=f"{name}:1", certificate=name.encode(),
                isolation=Isolation.QEMU_TCG, images=(IMAGE.digest,), capacity=CAPACITY,
                result_key=b"k", result_proof=b"p",
            )
        )  # fmt: skip
        self.watchers.tell([gone] if gone else [])
        self.watchers.ask_again()

    def expire(self) -> None:
        self.watchers.tell(self.registry.expire())


class SimulatedScheduler:
    """Replaces `SchedulerClient`: asks the real registry, answers over the simulated network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def authenticate(self, **_: object) -> SessionGrant:
        return SessionGrant("session", self._network.loop.at + 1e6)

    async def route(self, _session: str, ask: RouteAsk) -> Route:
        network = self._network
        network.expire()
        answer: Route | HpccError
        try:
            route_request = RouteRequest(
                image=IMAGE.digest, rank=Isolation.QEMU_TCG.rank, home=0,
                last=ask.last_worker, failed_generation=ask.failed_generation,
                warm=ask.warm_workers,
            )  # fmt: skip
            worker = network.registry.choose(route_request, lambda _: 0)
            further = network.registry.further(route_request, worker, len(NAMES))
        except NotFoundError as error:
            answer = error
        else:
            more = further[: max(ask.wanted - 1, 0) // CAPACITY]
            answer = replace(self.route_to(worker), more=tuple(map(self.route_to, more)))
        future: asyncio.Future[Route] = network.loop.create_future()
        network.answers.append((future, answer))
        return await future

    def route_to(self, worker: Worker) -> Route:
        return Route(
            endpoint=worker.registration.endpoint,
            worker_certificate=worker.registration.certificate,
            token="t", token_expires_at=self._network.loop.at + 300.0,
            generation=worker.generation, isolation=worker.registration.isolation,
            worker_id=worker.registration.worker_id, principal="ann",
            guest_reuse=GuestReuse.TENANT, minimum_isolation=Isolation.QEMU_TCG, slots=CAPACITY,
        )  # fmt: skip

    async def watch(self, _session: str, tenant: TenantId) -> AsyncGenerator[RouteChange]:
        network = self._network
        arrived: asyncio.Queue[RouteChange | None] = asyncio.Queue()
        watcher = Watcher(tenant, "ann", lambda: False, takes_several=True)
        network.watchers.add(watcher)

        async def send() -> None:
            network.news.append((arrived, WATCHING))
            while (change := await watcher.next_or_none()) is not None:
                network.news.append((arrived, change))
            network.news.append((arrived, None))

        task = asyncio.Task(send())
        try:
            while (change := await arrived.get()) is not None:
                yield change
            raise UnavailableError("the stream broke")
        finally:
            task.cancel()
            network.watchers.discard(watcher)


@dataclass(slots=True)
class Compile:
    """A running compile, and how long it has waited for each machine that was off, by name."""

    task: asyncio.Task[Any]
    outcome: str = ""


class DeadVms(RuleBasedStateMachine):
    """Simulates network, workers and time, and asserts the dispatcher's invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.network = Network(self.loop)
        self.compiles: list[Compile] = []
        # Dials of machines that are off, since when; and which compile dialled what, ever.
        self.dials: dict[object, float] = {}
        self.dialled: set[tuple[object, str, int]] = set()
        # The deaths that the daemon heard of: by worker, the highest dead generation, and when.
        self.told_dead: dict[str, int] = {}
        self.told_at: dict[tuple[str, int], float] = {}
        self.dialling: dict[object, int] = {}
        self.patch = pytest.MonkeyPatch()

    @initialize()
    def start(self) -> None:
        network, machine = self.network, self
        for name in NAMES:
            network.register(name)
        farm = Farm(
            scheduler="s:1", scheduler_certificate_pem="", tenant=TENANT.value, principal="ann",
            secret="s", image=str(IMAGE), isolation=Isolation.QEMU_TCG.value,
        )  # fmt: skip

        async def dial(channel: Any, seconds: float) -> None:
            """Dial a worker; a machine that is off accepts no connection and sends nothing."""
            worker = network.workers[channel]
            if worker.is_on:
                return
            await machine.silence(channel, seconds)
            raise UnavailableError("no connection", reason="dial")

        async def answers(channel: Any, seconds: float) -> bool:
            worker = network.workers[channel]
            if worker.is_on:
                return True
            try:
                async with asyncio.timeout(seconds):
                    await network.loop.create_future()
            except TimeoutError:
                pass
            return False

        self.patch.setattr(dispatch_calls, "dial", dial)
        self.patch.setattr(dispatch_calls, "answers", answers)

        async def build() -> None:
            channel: Any = object()
            self.connection = FarmConnection(farm, channel, Clock(self.loop), "t")
            scheduler: Any = SimulatedScheduler(network)
            self.connection._client = self.connection._login._client = scheduler
            channels = self.connection._channels
            routed = channels.worker

            def note(route: Route, lane: Lane | None = None) -> RoutedWorker:
                self.dialling[asyncio.current_task()] = route.generation
                return routed(route, lane)

            channels.worker = note
            channels._channel = lambda route: route.worker_id
            self.dispatcher = Dispatcher(
                Clock(self.loop), timeout_seconds=1e9, version="t", build_id="b"
            )
            results: Any = self.dispatcher._results
            results.executed, results.cached = self.on_worker, self.not_cached

        self.loop.run_until_complete(build())

    async def silence(self, name: str, seconds: float) -> None:
        """Wait as long as a dial of a machine that is off."""
        compile, token = asyncio.current_task(), object()
        generation = self.dialling[compile]
        assert generation > self.told_dead.get(name, 0), "dialled what was told dead"
        # Two dials of one dead VM would be two timeouts.
        assert (compile, name, generation) not in self.dialled, "dialled it again"
        self.dialled.add((compile, name, generation))
        self.dials[token] = self.loop.at
        try:
            async with asyncio.timeout(seconds):
                await self.loop.create_future()
        except TimeoutError:
            pass
        finally:
            del self.dials[token]

    async def not_cached(self, *_: object, **__: object) -> None:
        return

    async def on_worker(self, connection: FarmConnection, worker: RoutedWorker, *_: object) -> str:
        """Replaces the calls: wait until the worker answers or dies with its guest, or forever."""
        connection.opened(worker)
        simulated = self.network.workers[str(worker.channel)]
        assert worker.route.generation > self.told_dead.get(simulated.name, 0), "a dead route used"
        if not simulated.is_guest_alive:
            # The worker is well: it boots another one.
            simulated.is_guest_alive = True
        call: asyncio.Future[None] = self.loop.create_future()
        simulated.calls[call] = worker.route.generation
        try:
            await call
        finally:
            del simulated.calls[call]
        return "compiled"

    def settle(self) -> None:
        async def rounds() -> None:
            for _ in range(ROUNDS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(rounds())

    # What may happen, in any order.

    @precondition(lambda self: len(self.compiles) < MAX_COMPILES)
    @rule()
    def compile(self) -> None:
        number = len(self.compiles)
        prepared = PreparedAction(
            digest=Digest.of(str(number).encode()), messages={}, files={}, outputs={}, image=IMAGE
        )
        request = RemoteRequest(argv=("cc",), env=(), cwd="", inputs=(), outputs=("a.o",))

        async def run() -> str:
            try:
                return str(await self.dispatcher._routed(self.connection, request, prepared))
            except HpccError as error:
                return f"local: {error.reason}"

        self.compiles.append(Compile(self.loop.create_task(run())))
        self.settle()

    @precondition(lambda self: self.network.answers)
    @rule()
    def answer_arrives(self) -> None:
        future, answer = self.network.answers.popleft()
        if not future.done():
            if isinstance(answer, Route):
                future.set_result(answer)
            else:
                future.set_exception(answer)
        self.settle()

    @precondition(lambda self: self.network.news)
    @rule()
    def news_arrive(self) -> None:
        queue, change = self.network.news.popleft()
        queue.put_nowait(change)
        self.settle()
        if change is not None and change.is_dead:
            self.note_death(change)

    def note_death(self, change: RouteChange) -> None:
        if change.worker_id:
            known = self.told_dead.get(change.worker_id, 0)
            self.told_dead[change.worker_id] = max(known, change.generation)
            for generation in self.network.workers[change.worker_id].calls.values():
                if generation <= change.generation:
                    self.told_at.setdefault((change.worker_id, generation), self.loop.at)

    @rule(name=st.sampled_from(NAMES))
    def guest_crashes_and_all_hear(self, name: str) -> None:
        """Do a whole crash in one step, so that runs vary mostly in the answers in transit."""
        self.guest_crashes(name)
        while self.network.notices:
            self.notice_arrives()
        while self.network.news:
            self.news_arrive()

    @rule()
    def everything_arrives(self) -> None:
        self.deliver()

    @rule(name=st.sampled_from(NAMES))
    def guest_crashes(self, name: str) -> None:
        """Let the worker reap its guest; the notice is in transit."""
        worker = self.network.workers[name]
        if worker.is_on and worker.is_guest_alive:
            worker.is_guest_alive = False
            self.network.notices.append(name)

    @precondition(lambda self: self.network.notices)
    @rule()
    def notice_arrives(self) -> None:
        """Let the scheduler drop the generation; only then does the worker answer its callers."""
        name = self.network.notices.popleft()
        try:
            change, _ = self.network.registry.lost(name, 0)
        except NotFoundError:
            pass
        else:
            self.network.watchers.tell([change])
        self.fail_calls(name, GuestLostError("died"))
        self.settle()

    def fail_calls(self, name: str, error: HpccError) -> None:
        for call in list(self.network.workers[name].calls):
            if not call.done():
                call.set_exception(error)

    @rule(name=st.sampled_from(NAMES))
    def machine_is_cut_off(self, name: str) -> None:
        """Cut power or network: the machine sends no packet any more, not even a refusal."""
        if self.network.workers[name].is_on:
            # It answered the calls that started after it was reported dead. gRPC's keepalive ends
            # those calls; the model leaves it out.
            self.told_at = {key: at for key, at in self.told_at.items() if key[0] != name}
        self.network.workers[name].is_on = False
        self.network.notices = deque(n for n in self.network.notices if n != name)

    @rule(name=st.sampled_from(NAMES))
    def worker_is_killed(self, name: str) -> None:
        """End the process: its machine closes the connections, calls break, it registers again."""
        worker = self.network.workers[name]
        if worker.is_on:
            self.fail_calls(name, UnavailableError("connection reset"))
            self.network.notices = deque(n for n in self.network.notices if n != name)
            worker.is_guest_alive = True
            self.network.register(name)
            self.settle()

    @rule(name=st.sampled_from(NAMES))
    def machine_comes_back(self, name: str) -> None:
        worker = self.network.workers[name]
        if not worker.is_on:
            worker.is_on = worker.is_guest_alive = True
            self.fail_calls(name, UnavailableError("connection reset"))
            self.network.register(name)
            self.settle()

    @rule(name=st.sampled_from(NAMES))
    def heartbeat(self, name: str) -> None:
        if not self.network.workers[name].is_on:
            return
        beat = Beat(worker_id=name, generation=1, running=0, queued=0)
        try:
            self.network.registry.heartbeat(beat)
        except NotFoundError:
            self.network.register(name)
        self.settle()

    @rule(name=st.sampled_from(NAMES))
    def compile_ends(self, name: str) -> None:
        worker = self.network.workers[name]
        if worker.is_on and worker.is_guest_alive:
            for call in list(worker.calls):
                if not call.done():
                    call.set_result(None)
            self.settle()

    @rule()
    def stream_breaks(self) -> None:
        for watcher in list(self.network.watchers._all):
            self.network.watchers._end(watcher)
        self.settle()

    @rule(seconds=st.sampled_from([0.5, 1.0, DIAL_SECONDS, LEASE]))
    def time_passes(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.loop.at += 0.5
            self.settle()
            self.check_waits()
            self.network.expire()
        self.settle()

    def check_waits(self) -> None:
        """Assert that no wait lasts longer than one dial.

        This covers a connection, and an answer from a machine that was reported dead.
        """
        now = self.loop.at
        assert all(now - since <= DIAL_SECONDS for since in self.dials.values())
        for worker in self.network.workers.values():
            for generation in worker.calls.values() if not worker.is_on else ():
                told_at = self.told_at.get((worker.name, generation), now)
                assert now - told_at <= DIAL_SECONDS, "waits on a machine that is said to be dead"

    @invariant()
    def no_dead_route_is_current(self) -> None:
        """The daemon never uses a route again after it heard that the route is dead."""
        if not hasattr(self, "connection"):
            return
        for lane in self.connection._book.lanes:
            assert lane.route.generation > self.told_dead.get(lane.route.worker_id, 0)

    @invariant()
    def places_are_counted(self) -> None:
        """Each place belongs to a compile under way, and no worker gets more than it may wait."""
        if not hasattr(self, "connection"):
            return
        running = sum(not c.task.done() for c in self.compiles)
        assert 0 <= self.connection._book.in_flight <= running
        for lane in self.connection._book.lanes:
            assert lane.in_flight >= 0

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.quiesce()
        self.patch.undo()
        self.loop.run_until_complete(self.close())
        self.loop.close()

    def quiesce(self) -> None:
        """Deliver every message and let all time pass; then nothing may wait on a dead VM.

        Compiles may wait only for a live worker. The lease and one dial end all other waits.
        """
        for _ in range(int((LEASE + 3 * DIAL_SECONDS) * 2)):
            self.deliver()
            self.time_passes(0.5)
            for name in NAMES:
                self.heartbeat(name)
        self.deliver()
        for compile in self.compiles:
            if not compile.task.done():
                waiting = [w for w in self.network.workers.values() if w.calls]
                assert all(w.is_on and w.is_guest_alive for w in waiting), "waits on a dead VM"
        for _ in range(MAX_COMPILES):
            for name in NAMES:
                self.compile_ends(name)
                self.deliver()
        assert self.connection._book.in_flight == 0
        for compile in self.compiles:
            assert compile.task.done(), "a compile hangs"
            assert not compile.task.cancelled()

    def deliver(self) -> None:
        for _ in range(100):
            if self.network.notices:
                self.notice_arrives()
            elif self.network.news:
                self.news_arrive()
            elif self.network.answers:
                self.answer_arrives()
            else:
                return
        raise AssertionError("the network never rests")

    async def close(self) -> None:
        if hasattr(self, "connection"):
            watcher = self.connection._watcher
            for task in [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]:
                task.cancel()
            del watcher
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            self.dispatcher.close()


DeadVms.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=40)
TestDeadVms = DeadVms.TestCase


@pytest.fixture
def farm() -> Iterator[DeadVms]:
    """Yield a machine in which one compile waits at w1 and every message has arrived."""
    machine = DeadVms()
    machine.start()
    machine.compile()
    machine.deliver()
    assert machine.network.workers["w1"].calls
    yield machine
    machine.teardown()


def outcome(compile: Compile) -> str:
    return str(compile.task.result())


def test_a_death_that_is_told_before_the_answer_that_names_it_is_not_forgotten() -> None:
    machine = DeadVms()
    machine.start()
    machine.compile()
    machine.news_arrive()  # from here on it hears of deaths, and asks
    (_, answer) = machine.network.answers[0]
    assert isinstance(answer, Route)
    machine.guest_crashes_and_all_hear(answer.worker_id)
    machine.answer_arrives()
    # The answer is known to be old: nobody is dialled, the scheduler is asked once more.
    assert not any(w.calls for w in machine.network.workers.values())
    machine.deliver()
    assert any(w.calls for w in machine.network.workers.values())
    machine.teardown()


def test_a_death_between_question_and_watch_is_told_all_the_same() -> None:
    machine = DeadVms()
    machine.start()
    machine.compile()
    assert not machine.network.answers, "it asks before anybody would tell it of a death"
    machine.deliver()
    machine.teardown()


def test_a_machine_that_is_cut_off_is_dialled_once_and_then_shunned(farm: DeadVms) -> None:
    farm.compile_ends("w1")
    for name in NAMES:
        farm.machine_is_cut_off(name)
    for _ in range(3):
        farm.compile()
        for _ in range(4):
            farm.deliver()
            farm.time_passes(DIAL_SECONDS)
            for name in NAMES:
                farm.network.registry.heartbeat(  # a scheduler that does not notice
                    Beat(worker_id=name, generation=1, running=0, queued=0)
                )  # fmt: skip
        assert farm.compiles[-1].task.done()
    # Each of the two once; the later compiles wait for neither, until they are tried again.
    first, *later = farm.compiles[1:]
    assert outcome(first) == "local: dial"
    assert {key[0] for key in farm.dialled} >= {first.task}
    assert sum(key[0] is first.task for key in farm.dialled) == 2
    assert sum(key[0] is later[0].task for key in farm.dialled) <= 2


def test_a_compile_at_a_machine_that_is_cut_off_ends_one_dial_after_the_lease(
    farm: DeadVms,
) -> None:
    farm.machine_is_cut_off("w1")
    for _ in range(int(LEASE) + 1):
        farm.time_passes(1.0)
        farm.heartbeat("w2")
    farm.news_arrive()
    assert farm.network.workers["w1"].calls
    farm.time_passes(DIAL_SECONDS)
    farm.deliver()
    assert not farm.network.workers["w1"].calls
    assert farm.network.workers["w2"].calls


def test_a_guest_that_died_ends_no_compile_in_another_guest_of_the_worker(farm: DeadVms) -> None:
    farm.network.register("w1")  # its routes are reported dead, and it is well
    farm.deliver()
    farm.time_passes(2 * DIAL_SECONDS)
    assert farm.network.workers["w1"].calls
    farm.compile_ends("w1")
    assert outcome(farm.compiles[0]) == "compiled"


def test_a_stream_that_breaks_makes_each_worker_show_that_it_lives(farm: DeadVms) -> None:
    farm.machine_is_cut_off("w1")
    farm.stream_breaks()
    farm.news_arrive()
    assert farm.connection._book.current is None
    farm.time_passes(DIAL_SECONDS)
    assert not farm.network.workers["w1"].calls
