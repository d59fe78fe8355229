"""A crowd for the farm simulator, in a separate process: many workers, or many daemons.

The process reads one JSON line of `Crowd` from standard input, joins the farm, and prints a JSON
line when it has joined. For each further line of `Busy` it makes calls for that many seconds and
prints what it measured. Every member has a separate connection, as in a real farm. Calls follow a
timetable instead of waiting for each other, so a slow answer also counts against the calls that
were due meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import sys
import time
from array import array
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, fields

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.heads import HeadSigner
from hpcc.core import HpccError, ImageDigest, ImageRef, Isolation, TenantId
from hpcc.identity.results import ResultSigner
from hpcc.identity.tls import PinnedPeer
from hpcc.identity.worker_ca import new_worker_key
from hpcc.ports import SystemClock
from hpcc.rpc.base.channel import ClientTls, open_channel
from hpcc.rpc.scheduler.api import NO_FACTS, Beat, Registration, RouteAsk, WorkerFacts
from hpcc.rpc.scheduler.client import RegistryClient, SchedulerClient
from hpcc.rpc.scheduler.enrolment import ask_to_enrol

IMAGE = ImageRef("bench/gcc", ImageDigest("sha256:" + "ab" * 32))
TENANT = TenantId("bench")
# Concurrent handshakes; a real farm does not start in one instant either.
JOINING = 32
DOORS = 4
CAPACITY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """The members and their addresses: `kind` is "workers" or "daemons"."""

    kind: str
    count: int
    scheduler: str
    certificate_pem: str
    secret: str = ""
    # For workers: the address where they enrol, and their tokens.
    enrol_at: str = ""
    tokens: tuple[str, ...] = ()

    @staticmethod
    def parse(line: str) -> Crowd:
        values = json.loads(line)
        return Crowd(**{f.name: values[f.name] for f in fields(Crowd)})

    def channel(self, endpoint: str, client: ClientTls | None = None) -> grpc.aio.Channel:
        peer = PinnedPeer.from_pem(self.certificate_pem.encode())
        return open_channel(
            endpoint, certificate_pem=peer.certificate_pem, name=peer.name, client=client
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """The rate of calls of all members together, and for how long.

    With `facts` heartbeats also say what a worker tells people of its machine.
    """

    calls_per_second: float
    seconds: float
    facts: bool = True


class Member:
    """One worker or daemon: how it joins, and the call that it repeats."""

    def __init__(self, crowd: Crowd, number: int, doors: Sequence[grpc.aio.Channel]) -> None:
        """`doors` are channels to the daemons' port, over which workers enrol."""
        self.crowd, self.number, self.doors = crowd, number, doors

    async def join(self, stack: AsyncExitStack) -> None:
        raise NotImplementedError

    async def call(self) -> None:
        raise NotImplementedError


class Worker(Member):
    """Registers, then sends heartbeats whose load and audit anchor change each time."""

    says_facts = True

    async def join(self, stack: AsyncExitStack) -> None:
        self.name = f"w{self.number}"
        key_pem, request = new_worker_key()
        grant, _ = await ask_to_enrol(
            self.doors[self.number % len(self.doors)],
            token=self.crowd.tokens[self.number],
            request=request,
            worker_id=self.name,
        )
        channel = self.crowd.channel(
            self.crowd.scheduler, ClientTls(key_pem, grant.certificate_pem)
        )
        self.registry = RegistryClient(await stack.enter_async_context(channel))
        self.beats = 0
        peer = PinnedPeer.from_pem(self.crowd.certificate_pem.encode())
        certificate = peer.certificate_pem + self.name.encode()
        key = Ed25519PrivateKey.generate()
        signer, self.heads = ResultSigner(key, SystemClock()), HeadSigner(self.name, key)
        admission = await self.registry.register(
            Registration(
                worker_id=self.name,
                endpoint=f"10.0.0.1:{1024 + self.number}",
                certificate=certificate,
                isolation=Isolation.QEMU_KVM,
                images=(IMAGE.digest,),
                capacity=CAPACITY,
                result_key=signer.public,
                result_proof=signer.possession(self.name, certificate),
            )
        )
        self.generation = admission.generation
        self.lease_seconds = admission.lease_seconds
        self.pulse, self.turn = self.registry.pulse(), asyncio.Lock()
        # Its lease must last until all have joined.
        self.resting = asyncio.Task(self._rest())

    async def _rest(self) -> None:
        while True:
            await asyncio.sleep(self.lease_seconds / 4)
            with suppress(HpccError):
                await self.call()

    async def call(self) -> None:
        async with self.turn:
            try:
                await self._beat()
            except HpccError:
                self.pulse.close()
                self.pulse = self.registry.pulse()
                raise

    async def _beat(self) -> None:
        self.beats += 1
        running = random.randint(0, CAPACITY)
        answer = await self.pulse.beat(
            Beat(
                worker_id=self.name,
                generation=self.generation,
                running=running,
                queued=0,
                anchor=self.heads.sign(self.beats, f"{self.beats:064x}", time.time()),
                facts=self._facts() if self.says_facts else NO_FACTS,
            )
        )
        self.generation = answer.generation
        self.lease_seconds = answer.lease_seconds

    def _facts(self) -> WorkerFacts:
        return WorkerFacts(
            version="0.1.0",
            up_seconds=float(self.beats),
            load=random.random(),
            store_bytes=self.beats << 20,
            store_limit_bytes=1 << 40,
            wait_p95_seconds=random.random(),
            waits=self.beats,
        )


class Daemon(Member):
    """Logs in and watches, then asks for routes."""

    watching: asyncio.Task[None]

    async def join(self, stack: AsyncExitStack) -> None:
        channel = await stack.enter_async_context(self.crowd.channel(self.crowd.scheduler))
        self.client = SchedulerClient(channel)
        grant = await self.client.authenticate(
            secret=self.crowd.secret,
            tenant=TENANT,
            principal=f"p{self.number}",
            client_version="bench",
        )
        self.session = grant.session
        self.ask = RouteAsk(tenant=TENANT, image=IMAGE, client_key=bytes(32))
        self.watching = asyncio.Task(self._watch())

    async def _watch(self) -> None:
        async with aclosing(self.client.watch(self.session, TENANT)) as changes:
            async for _ in changes:
                pass

    async def call(self) -> None:
        await self.client.route(self.session, self.ask)


async def join_all(crowd: Crowd, stack: AsyncExitStack) -> list[Member]:
    doors = [
        await stack.enter_async_context(crowd.channel(crowd.enrol_at))
        for _ in range(DOORS if crowd.enrol_at else 0)
    ]
    kind: type[Member] = Worker if crowd.kind == "workers" else Daemon
    door = asyncio.Semaphore(JOINING)

    async def join(number: int) -> Member:
        async with door:
            member = kind(crowd, number, doors)
            await member.join(stack)
            return member

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(join(n)) for n in range(crowd.count)]
    return [t.result() for t in tasks]


async def timetable(rate: float, seconds: float) -> AsyncGenerator[float]:
    """Yield the due time of each call when it is due; calls come as from independent callers."""
    loop = asyncio.get_running_loop()
    due, end = loop.time(), loop.time() + seconds
    while (due := due + random.expovariate(rate)) < end:
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        yield due


async def keep_busy(busy: Busy, members: list[Member]) -> dict[str, object]:
    """Call by the timetable; return seconds from due to answer, and failures by reason."""
    loop = asyncio.get_running_loop()
    taken, failures = array("d"), Counter[str]()

    async def one(call: Callable[[], Awaitable[None]], due: float) -> None:
        try:
            await call()
        except HpccError as error:
            failures[f"{error.reason}: {error}"] += 1
        else:
            taken.append(loop.time() - due)

    started = time.process_time()
    async with asyncio.TaskGroup() as group:
        turn = 0
        async for due in timetable(busy.calls_per_second, busy.seconds):
            group.create_task(one(members[turn % len(members)].call, due))
            turn += 1
    return {
        "taken": list(taken),
        "failures": dict(failures),
        "cpu_seconds": time.process_time() - started,
    }


def say(line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    crowd = Crowd.parse(sys.stdin.readline())
    async with AsyncExitStack() as stack:
        started = time.monotonic()
        members = await join_all(crowd, stack)
        workers = [m for m in members if isinstance(m, Worker)]
        # A collector pause in this process would count as the scheduler's.
        gc.collect()
        gc.freeze()
        gc.disable()
        say({"joined": len(members), "seconds": time.monotonic() - started})
        while line := await asyncio.to_thread(sys.stdin.readline):
            for worker in workers:
                worker.resting.cancel()
            busy = Busy(**json.loads(line))
            for worker in workers:
                worker.says_facts = busy.facts
            said = await keep_busy(busy, members)
            say({**said, "lease_seconds": max((w.lease_seconds for w in workers), default=0.0)})
        for member in members:
            if isinstance(member, Daemon):
                member.watching.cancel()


if __name__ == "__main__":
    asyncio.run(main())
