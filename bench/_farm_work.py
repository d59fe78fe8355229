"""What routes and heartbeats cost a scheduler's own code, without gRPC, sockets or a crowd.

A real scheduler serves in this process, but its calls come as Python objects: the handlers that
gRPC would call get messages as bytes, and their answers are encoded. So all of hpcc's own code is
in the figures and nothing else is. They are counts of bytecodes, or CPU beside the CPU of an
Ed25519 signature that is taken in turns, so they can be compared between machines and days. Wall
time is in none of them.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import grpc
from _farm_crowd import CAPACITY, IMAGE, TENANT
from _farm_rows import Figure
from _loop_watch import LoopWatch, instructions, watched
from _measure import BenchError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc._proto import scheduler_pb2 as pb
from hpcc.audit.base.heads import HeadSigner
from hpcc.config.service_file import load_service_file
from hpcc.core import Isolation
from hpcc.identity.results import ResultSigner
from hpcc.identity.tls import PinnedPeer
from hpcc.identity.worker_ca import new_worker_key
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.api import Beat, Registration
from hpcc.rpc.scheduler.pulse import beat_message
from hpcc.rpc.scheduler.registration_messages import registration_message
from hpcc.scheduler.base.collector import Collector
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import open_enrolment, serve_scheduler

# The work of a route may grow by so much from a tenth of the workers to all of them.
GROWTH_GOAL: Final = 1.1
# A route waits for each turn that comes before it.
TURN_GOAL_MS: Final = 5.0
_LEASE_SECONDS: Final = 120.0
_COUNTED: Final = 20
_ROUNDS: Final = 20
_AT_ONCE: Final = 20
# The collector freezes ten seconds after the last worker has joined.
_CALM_SECONDS: Final = 13.0
_SHOWN: Final = 5
# The tasks of this program, which a real scheduler does not have.
_OWN: Final = "the bench"
_SECRET: Final = secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Work:
    """The sizes of the farm, the last one the largest, and how long its loop is watched."""

    workers: tuple[int, ...] = (100, 1000)
    seconds: float = 30.0


class Costs(NamedTuple):
    """Of one call: bytecodes, and CPU as a multiple of that of a signature.

    Bytecodes are the least of several calls, because periodic work may come in between.
    """

    bytecodes: float
    signatures: float


class Details(NamedTuple):
    """What gRPC asks handlers with: the path of a method."""

    method: str
    invocation_metadata: tuple[()] = ()


class Context:
    """What a handler sees of a call: `sent` are its messages, `answers` what was written."""

    def __init__(self, *sent: bytes, credential: str = "", certificate: bytes = b"") -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        for message in sent:
            self.sent.put_nowait(message)
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self._credential, self._certificate = credential, certificate

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("user-agent", "bench"), ("authorization", f"Bearer {self._credential}"))

    def peer(self) -> str:
        return "ipv4:127.0.0.1:4711"

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {"x509_pem_cert": [self._certificate]} if self._certificate else {}

    def code(self) -> None:
        return None

    async def read(self) -> Any:  # noqa: ANN401 - bytes, or what gRPC has for the end
        return await self.sent.get()

    async def write(self, message: Any) -> None:  # noqa: ANN401 - a message of generated code
        self.answers.put_nowait(message.SerializeToString())

    async def abort(self, code: object, why: str, **more: object) -> None:
        del more
        raise BenchError(f"a call was refused: {code}: {why}")


class Service:
    """A scheduler whose handlers are called here, with workers that have streams."""

    def __init__(self, handlers: Sequence[grpc.GenericRpcHandler], tokens: Sequence[str]) -> None:
        self._handlers, self._tokens = handlers, tokens
        self.workers: list[Worker] = []
        self._session = ""

    def method(self, path: str) -> Any:  # noqa: ANN401 - a handler of grpc, generic over the messages
        details: Any = Details(path)
        for handlers in self._handlers:
            if (found := handlers.service(details)) is not None:
                return found
        raise BenchError(f"no method {path}")

    async def call(self, path: str, request: Any, **context: Any) -> Any:  # noqa: ANN401 - messages of generated code
        handler = self.method(path)
        answer = await handler.stream_unary(None, Context(request.SerializeToString(), **context))
        handler.response_serializer(answer)
        return answer

    async def login(self) -> None:
        request = pb.AuthenticateRequest(tenant=TENANT.value, principal="p", client_version="bench")
        path = "/hpcc.v1.SchedulerService/Authenticate"
        self._session = (await self.call(path, request, credential=_SECRET)).session

    async def join(self, certificate_pem: str, count: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + _LEASE_SECONDS / 4
        for number in range(count):
            self.workers.append(await Worker.joined(self, certificate_pem, number))
            if loop.time() >= due:
                # On a slow disk the lease of the first ones would end before the last has joined.
                await self.beat()
                due = loop.time() + _LEASE_SECONDS / 4
        await self.beat()

    async def beat(self) -> None:
        """Renew the lease of each worker."""
        for worker in self.workers:
            await worker.beat(worker.made())

    async def enrolled(self, name: str, number: int) -> bytes:
        _, request = new_worker_key()
        said = pb.EnrolRequest(certificate_request=request, worker_id=name)
        path = "/hpcc.v1.WorkerEnrolmentService/Enrol"
        answer = await self.call(path, said, credential=self._tokens[number])
        return bytes(answer.certificate)

    def asked(self) -> tuple[Any, Context]:
        """Return the handler of a route, and a call of it."""
        request = pb.RouteRequest(tenant=TENANT.value, image=str(IMAGE), client_key=bytes(32))
        context = Context(request.SerializeToString(), credential=self._session)
        return self.method("/hpcc.v1.SchedulerService/Route"), context


async def route(asked: tuple[Any, Context]) -> None:
    handler, context = asked
    handler.response_serializer(await handler.stream_unary(None, context))


class Worker:
    """A worker with an open stream, whose heartbeats are made before they are sent."""

    def __init__(self, service: Service, name: str, certificate: bytes) -> None:
        self.name, self._context = name, Context(certificate=certificate)
        self._key, self.generation, self._beats = Ed25519PrivateKey.generate(), 0, 0
        self._heads = HeadSigner(name, self._key)
        pulse = service.method("/hpcc.v1.WorkerRegistryService/Pulse")
        self._stream = asyncio.ensure_future(pulse.stream_stream(None, self._context))
        # A stream that was refused answers nothing any more: nobody must wait for that.
        self._stream.add_done_callback(lambda _: self._context.answers.put_nowait(None))

    @staticmethod
    async def joined(service: Service, certificate_pem: str, number: int) -> Worker:
        name = f"w{number}"
        certificate = await service.enrolled(name, number)
        worker = Worker(service, name, certificate)
        own = PinnedPeer.from_pem(certificate_pem.encode()).certificate_pem + name.encode()
        signer = ResultSigner(worker._key, SystemClock())
        registration = Registration(
            worker_id=name, endpoint=f"10.0.0.1:{1024 + number}", certificate=own,
            isolation=Isolation.QEMU_KVM, images=(IMAGE.digest,), capacity=CAPACITY,
            result_key=signer.public, result_proof=signer.possession(name, own),
        )  # fmt: skip
        path = "/hpcc.v1.WorkerRegistryService/Register"
        request = registration_message(registration)
        answer = await service.call(path, request, certificate=certificate)
        worker.generation = answer.generation
        return worker

    def made(self) -> bytes:
        """Return the next heartbeat."""
        self._beats += 1
        head = self._heads.sign(self._beats, f"{self._beats:064x}", time.time())
        beat = Beat(worker_id=self.name, generation=self.generation, running=self._beats % CAPACITY,
                    queued=0, anchor=head)  # fmt: skip
        return beat_message(beat).SerializeToString()

    async def beat(self, message: bytes) -> None:
        """Send a heartbeat and wait for its answer.

        Raises:
            BenchError: the stream has ended.
        """
        self._context.sent.put_nowait(message)
        answers = self._context.answers
        if self._stream.done() or await answers.get() is None:
            await self._stream
            raise BenchError(f"the stream of worker {self.name} has ended")

    async def leave(self) -> None:
        self._context.sent.put_nowait(grpc.aio.EOF)
        await self._stream


class _NoServer:
    async def stop(self, grace: float) -> None:
        """Do nothing."""


def written(directory: Path) -> SchedulerConfig:
    """Return the configuration of a scheduler with one tenant, from its file."""
    directory.mkdir()
    file = directory / "scheduler.json"
    file.touch(mode=0o600)
    config = {
        "keys": str(directory / "keys"), "state": str(directory / "state"),
        "tenant": TENANT.value, "tenant_secret": _SECRET, "minimum_isolation": "qemu/tcg",
        "images": [IMAGE.digest.value], "lease_seconds": _LEASE_SECONDS,
    }  # fmt: skip
    file.write_text(json.dumps(config))
    return load_service_file(file, SchedulerConfig)


@asynccontextmanager
async def served(config: SchedulerConfig, workers: int) -> AsyncGenerator[Service]:
    """Run a scheduler with so many workers in this process; it listens nowhere."""
    clock, handlers = SystemClock(), list[Any]()
    async with open_enrolment(config, clock) as enrolment:
        tokens = [await enrolment.new_token("", 3600.0) for _ in range(workers)]

    async def start(given: Sequence[Any], **more: object) -> tuple[_NoServer, int]:
        del more
        handlers.extend(given)
        return _NoServer(), 1

    with patch("hpcc.scheduler.serve.start_server", start):
        async with serve_scheduler(config, clock, collector=Collector()) as running:
            service = Service(handlers, tokens)
            await service.login()
            await service.join(running.certificate_pem, workers)
            try:
                yield service
            finally:
                for worker in service.workers:
                    await worker.leave()


class WorkBench:
    """Measures one scheduler in this process, once for each size of its farm."""

    def __init__(self, work: Work, directory: Path, show: Callable[[Figure], None]) -> None:
        self._work, self._directory, self._show = work, directory, show
        self._key = Ed25519PrivateKey.generate()

    def run(self) -> None:
        """Measure each size.

        Raises:
            BenchError: a call was refused.
        """
        costs = []
        for count in self._work.workers:
            config = written(self._directory / f"of-{count}")
            costs.append(asyncio.run(self._one(config, count)))
        for what, few, many in (
            ("a route", costs[0][0], costs[-1][0]),
            ("a heartbeat", costs[0][1], costs[-1][1]),
        ):
            said = f"{what}: bytecodes with {self._work.workers[-1]} workers by"
            ratio = many.bytecodes / few.bytecodes
            self._show(Figure(f"{said} {self._work.workers[0]}", ratio, "times", GROWTH_GOAL))

    async def _one(self, config: SchedulerConfig, count: int) -> tuple[Costs, Costs]:
        if (task := asyncio.current_task()) is not None:
            task.set_name(_OWN)
        async with served(config, count) as service:
            costs = await self._routes(service), await self._beats(service)
            for what, cost in zip(("a route", "a heartbeat"), costs, strict=True):
                self._show(Figure(f"{count} workers: {what}", cost.bytecodes, "bytecodes"))
                self._show(Figure(f"{count} workers: {what}", cost.signatures, "signatures of CPU"))
            if count == self._work.workers[-1]:
                await self._loop(service, count)
            return costs

    async def _routes(self, service: Service) -> Costs:
        counts = []
        for _ in range(_COUNTED):
            asked = service.asked()
            with instructions() as found:
                await route(asked)
            counts += found
        ratios = []
        for _ in range(_ROUNDS):
            calls = [service.asked() for _ in range(_AT_ONCE)]
            signature, started = self._signature(), time.thread_time()
            for call in calls:
                await route(call)
            ratios.append((time.thread_time() - started) / _AT_ONCE / signature)
        return Costs(min(counts), median(ratios))

    async def _beats(self, service: Service) -> Costs:
        counts, ratios, turn = [], [], 0
        for _ in range(_COUNTED):
            worker = service.workers[turn % len(service.workers)]
            message, turn = worker.made(), turn + 1
            with instructions() as found:
                await worker.beat(message)
            counts += found
        for _ in range(_ROUNDS):
            beats = [(w, w.made()) for w in service.workers[:_AT_ONCE]]
            signature, started = self._signature(), time.thread_time()
            for worker, message in beats:
                await worker.beat(message)
            ratios.append((time.thread_time() - started) / len(beats) / signature)
        return Costs(min(counts), median(ratios))

    def _signature(self) -> float:
        """Return the CPU of an Ed25519 signature of a token's size, in seconds."""
        message, started = bytes(700), time.thread_time()
        for _ in range(_AT_ONCE):
            self._key.sign(message)
        return (time.thread_time() - started) / _AT_ONCE

    async def _loop(self, service: Service, count: int) -> None:
        """Show what holds routes up while heartbeats and routes come."""
        await asyncio.sleep(min(_CALM_SECONDS, self._work.seconds))
        loop = asyncio.get_running_loop()
        with watched() as watch:
            end, turn = loop.time() + self._work.seconds, 0
            while loop.time() < end:
                worker = service.workers[turn % len(service.workers)]
                await asyncio.create_task(worker.beat(worker.made()), name=_OWN)
                await asyncio.create_task(route(service.asked()))
                await asyncio.sleep(0)
                turn += 1
        self._show_watch(watch, count)

    def _show_watch(self, watch: LoopWatch, count: int) -> None:
        found = [(name, turns) for name, turns in watch.longest() if name != _OWN]
        for name, turns in found[:_SHOWN]:
            what = f"{count} workers: the longest of {turns.count} turns of {name}"
            self._show(Figure(what, 1e3 * turns.longest, "ms of CPU", TURN_GOAL_MS))
        for generation, turns in sorted(watch.collections.items()):
            what = f"{count} workers: the longest of {turns.count} collections of {generation}"
            self._show(Figure(what, 1e3 * turns.longest, "ms of CPU", TURN_GOAL_MS))
