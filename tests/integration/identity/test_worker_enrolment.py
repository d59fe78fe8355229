"""Worker enrolment: one-time tokens, certificates over mTLS, and attempts without either."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import CallerError, HpccError, PolicyError
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.tls import PinnedPeer
from hpcc.identity.worker_ca import WorkerCa, new_worker_key, read_request
from hpcc.ports import Entry, SystemClock
from hpcc.rpc.base.channel import ClientTls, open_channel
from hpcc.rpc.base.errors import UnauthenticatedError, UnavailableError
from hpcc.rpc.scheduler.api import Beat
from hpcc.rpc.scheduler.client import RegistryClient
from hpcc.rpc.scheduler.enrolment import ask_to_enrol, ask_to_renew
from hpcc.scheduler.base.certificate import TLS_NAME
from hpcc.scheduler.enrolment import Enrolment
from hpcc.scheduler.serve import open_enrolment
from hpcc.worker.base.identity import (
    IDENTITY_NAME,
    SchedulerChannels,
    enrol_worker,
    known_certificates,
    load_identity_or_none,
    read_token,
)
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test

pytestmark = pytest.mark.timeout(120)


class Clock(SystemClock):
    """The machine's clock, which a test can set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@dataclass(slots=True)
class World:
    """A scheduler, its operator, and machines that apply to be workers."""

    farm: FarmUnderTest
    clock: Clock
    directory: Path

    @property
    def peer(self) -> PinnedPeer:
        return PinnedPeer.from_pem(self.farm.scheduler.certificate_pem.encode())

    async def operator[T](self, act: Callable[[Enrolment], object]) -> T:  # type: ignore[type-var]  # what `act` awaits
        async with open_enrolment(self.farm.scheduler_config, self.clock) as enrolment:
            return await act(enrolment)

    async def token(self, name: str = "", valid: float = 600.0) -> str:
        return await self.operator(lambda e: e.new_token(name, valid))

    async def enrol(self, token: str, name: str, request: bytes = b"") -> ClientTls:
        key, own = new_worker_key()
        async with self.daemons_port() as channel:
            grant, port = await ask_to_enrol(
                channel, token=token, request=request or own, worker_id=name
            )
        assert port == self.farm.scheduler.worker_port
        return ClientTls(key, grant.certificate_pem)

    def daemons_port(self) -> object:
        return self._channel(self.farm.scheduler.port, None)

    def workers_port(self, client: ClientTls | None) -> object:
        return self._channel(self.farm.scheduler.worker_port, client)

    def _channel(self, port: int, client: ClientTls | None) -> object:
        return open_channel(
            f"127.0.0.1:{port}",
            certificate_pem=self.peer.certificate_pem,
            name=self.peer.name,
            client=client,
        )

    @asynccontextmanager
    async def registry(self, client: ClientTls | None) -> AsyncGenerator[RegistryClient]:
        async with self.workers_port(client) as channel:
            yield RegistryClient(channel)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    clock = Clock()
    async with farm_under_test(tmp_path, clock=clock) as farm:
        yield World(farm, clock, tmp_path)


def beat(name: str) -> Beat:
    return Beat(worker_id=name, generation=1, running=0, queued=0)


async def one_beat(registry: RegistryClient, name: str) -> None:
    pulse = registry.pulse()
    try:
        await pulse.beat(beat(name))
    finally:
        pulse.close()


async def reason_of(call: object) -> str:
    with pytest.raises(HpccError) as refused:
        await call
    return refused.value.reason


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [r.getMessage() for r in caplog.records if "security event" in r.getMessage()]
    return [line.split()[2] for line in lines]


async def test_a_token_that_was_used_is_refused_and_leaves_an_event(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    token = await world.token()
    await world.enrol(token, "w7")
    assert await reason_of(world.enrol(token, "w8")) == "enrol-token-replayed"
    assert events(caplog) == ["enrol-token-replayed"]
    assert token not in caplog.text
    assert "ipv4:127.0.0.1" in caplog.text


async def test_a_token_that_is_used_twice_at_once_enrols_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await world.token()
    read = EmbeddedControlStore.entry_or_none

    async def slow(self: EmbeddedControlStore, space: str, key: str) -> Entry | None:
        found = await read(self, space, key)
        await asyncio.sleep(0.2)  # a database elsewhere: all have read before one writes
        return found

    monkeypatch.setattr(EmbeddedControlStore, "entry_or_none", slow)
    tasks = [asyncio.ensure_future(world.enrol(token, f"w{n}")) for n in range(6)]
    done, _ = await asyncio.wait(tasks)
    errors = [e for t in done if (e := t.exception()) is not None]
    assert len(errors) == 5
    assert {e.reason for e in errors if isinstance(e, HpccError)} == {"enrol-token-replayed"}
    assert len(await world.operator(lambda e: e.workers())) == 1


async def test_a_token_that_has_ended_is_refused(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    token = await world.token(valid=60.0)
    world.clock.ahead = 61.0
    assert await reason_of(world.enrol(token, "w7")) == "enrol-token-expired"
    assert events(caplog) == ["enrol-token-expired"]


@pytest.mark.parametrize("token", ["", "hpcc-enrol-" + "A" * 43, "x" * 5000, "hpcc-enrol-\u00e9"])
async def test_an_invented_token_is_refused(
    world: World, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    if token.isascii():
        assert await reason_of(world.enrol(token, "w7")) == "enrol-token-unknown"
        assert events(caplog) == ["enrol-token-unknown"]
    assert await world.operator(lambda e: e.workers()) == {}


async def test_the_store_holds_no_token(world: World) -> None:
    token = await world.token()
    state = world.directory / "scheduler" / "state"
    for path in [p for p in state.rglob("*") if p.is_file()]:
        assert token.encode() not in path.read_bytes()
        assert token.removeprefix("hpcc-enrol-").encode() not in path.read_bytes()


async def test_a_token_for_one_worker_enrols_no_other(world: World) -> None:
    token = await world.token("w7")
    assert await reason_of(world.enrol(token, "w8")) == "enrol-foreign-name"
    await world.enrol(token, "w7")


async def test_a_token_without_a_name_replaces_no_worker(world: World) -> None:
    await world.enrol(await world.token(), "w7")
    token = await world.token()
    assert await reason_of(world.enrol(token, "w7")) == "enrol-name-taken"
    await world.enrol(token, "w8")


def bomb(kind: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if kind == "oversized":
        names = [x509.DNSName(f"{n}.example") for n in range(3_000)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if kind == "rsa":
        big = rsa.generate_private_key(65537, 2048)
        return builder.sign(big, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    if kind == "other-curve":
        other = ec.generate_private_key(ec.SECP521R1())
        return builder.sign(other, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    if kind == "unsigned":
        return der[:-4] + bytes(b ^ 1 for b in der[-4:])
    return der if kind == "oversized" else b"\x30\x82\xff\xff" + b"\x30\x80" * 900


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("oversized", "csr-oversized"),
        ("nested", "csr-malformed"),
        ("rsa", "csr-key"),
        ("other-curve", "csr-key"),
        ("unsigned", "csr-signature"),
    ],
)
async def test_a_request_that_is_a_bomb_or_a_lie_is_refused_and_costs_no_token(
    world: World, kind: str, reason: str
) -> None:
    token = await world.token()
    assert await reason_of(world.enrol(token, "w7", bomb(kind))) == reason
    await world.enrol(token, "w7")


async def test_what_a_request_says_besides_its_key_is_not_believed(world: World) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "w1")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=5), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    tls = await world.enrol(await world.token(), "w7", request)
    certificate = x509.load_pem_x509_certificate(tls.certificate_pem)
    assert [a.value for a in certificate.subject] == ["w7"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]


async def test_a_worker_cannot_act_for_another(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.farm.serving():  # w1
        thief = await world.enrol(await world.token(), "w7")
        async with world.registry(thief) as registry:
            lost = registry.sandbox_lost(worker_id="w1", generation=1, guest_id="g", reason="r")
            for call in (one_beat(registry, "w1"), registry.deregister("w1"), lost):
                with pytest.raises(PolicyError) as refused:
                    await call
                assert refused.value.reason == "foreign-worker"
        assert events(caplog) == ["foreign-worker"] * 3
        assert (await world.farm.route()).worker_id == "w1"


async def test_the_registry_answers_nobody_without_a_certificate(world: World) -> None:
    async with world.registry(None) as registry:
        assert await reason_of(one_beat(registry, "w1")) == "unavailable"
    async with world.daemons_port() as channel:
        with pytest.raises(CallerError):
            await one_beat(RegistryClient(channel), "w1")


async def test_a_certificate_of_another_ca_is_refused(world: World) -> None:
    key, request = new_worker_key()
    foreign = WorkerCa.new(world.clock.now())
    pem = foreign.issue(read_request(request), "w1", world.clock.now(), 600.0)
    async with world.registry(ClientTls(key, pem)) as registry:
        assert await reason_of(one_beat(registry, "w1")) == "unavailable"
    # Also where the connection would not have asked.
    async with open_enrolment(world.farm.scheduler_config, world.clock) as enrolment:
        assert await reason_of(enrolment.admit(pem, "w1")) == "worker-foreign-ca"
        assert await reason_of(enrolment.admit(b"", "w1")) == "worker-certificate"


async def test_a_certificate_that_has_ended_is_refused_on_an_open_connection(world: World) -> None:
    tls = await world.enrol(await world.token(), "w7")
    async with world.registry(tls) as registry:
        assert await reason_of(one_beat(registry, "w7")) == "unknown-worker"
        world.clock.ahead = 8 * 86_400.0
        assert await reason_of(one_beat(registry, "w7")) == "worker-certificate-expired"


async def test_a_revoked_worker_is_refused_on_its_open_connection_and_its_routes_end(
    world: World,
) -> None:
    async with world.farm.serving():
        assert (await world.farm.route()).worker_id == "w1"
        identity = load_identity_or_none(world.directory / "worker" / "keys")
        assert identity is not None
        async with world.registry(identity.tls) as registry:
            await world.operator(lambda e: e.revoke("w1"))
            async with asyncio.timeout(60):
                while True:
                    try:
                        await one_beat(registry, "w1")
                    except UnauthenticatedError as error:
                        assert error.reason == "worker-revoked"
                        break
                    except HpccError:
                        pass
                    await asyncio.sleep(0.1)
                while await still_routed(world):  # noqa: ASYNC110 - the product has no event for it
                    await asyncio.sleep(0.1)
        # Its name may come back, with another key; the old one does not.
        await world.enrol(await world.token("w1"), "w1")
        async with world.registry(identity.tls) as registry:
            assert await reason_of(one_beat(registry, "w1")) == "worker-revoked"


async def still_routed(world: World) -> bool:
    try:
        await world.farm.route()
    except HpccError:
        return False
    return True


async def test_a_certificate_is_renewed_for_its_own_key_alone(world: World) -> None:
    tls = await world.enrol(await world.token(), "w7")
    _, other = new_worker_key()
    async with world.workers_port(tls) as channel:
        renewal = ask_to_renew(channel, request=other, worker_id="w7")
        assert await reason_of(renewal) == "csr-key"


async def test_a_worker_renews_in_time_and_goes_on_over_the_new_certificate(world: World) -> None:
    keys, turns = world.directory / "k", asyncio.Semaphore(0)

    class Turns(Clock):
        async def sleep(self, seconds: float) -> None:
            assert seconds > 0
            await turns.acquire()

    identity, port = await enrol_worker(
        keys,
        scheduler=f"127.0.0.1:{world.farm.scheduler.port}",
        certificate_pem=world.peer.certificate_pem,
        token=await world.token(),
        worker_id="w7",
    )
    known = known_certificates(world.peer.certificate_pem.decode(), keys)
    channels = SchedulerChannels(keys, identity, Turns(), f"127.0.0.1:{port}", known)
    async with channels.open() as schedulers:
        registry = RegistryClient(schedulers)
        before = (keys / IDENTITY_NAME).read_bytes()
        used = asyncio.Event()

        def use(new: object) -> None:
            registry.use(new)
            used.set()

        task = asyncio.ensure_future(channels.keep(schedulers, use))
        turns.release()
        async with asyncio.timeout(30):
            await used.wait()
        after = load_identity_or_none(keys)
        assert after is not None
        assert after.key_pem == identity.key_pem
        assert (keys / IDENTITY_NAME).read_bytes() != before
        assert (keys / IDENTITY_NAME).stat().st_mode & 0o777 == 0o600
        assert await reason_of(one_beat(registry, "w7")) == "unknown-worker"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_identity_or_token_that_others_can_read_is_refused(world: World) -> None:
    await enrol_worker(
        world.directory / "k",
        scheduler=f"127.0.0.1:{world.farm.scheduler.port}",
        certificate_pem=world.peer.certificate_pem,
        token=await world.token(),
        worker_id="w7",
    )
    os.chmod(world.directory / "k" / IDENTITY_NAME, 0o644)
    with pytest.raises(CallerError, match="chmod 600"):
        load_identity_or_none(world.directory / "k")
    token = world.directory / "token"
    token.write_text("hpcc-enrol-x")
    token.chmod(0o640)
    with pytest.raises(CallerError, match="chmod 600"):
        read_token(token)
    token.chmod(0o600)
    (world.directory / "link").symlink_to(token)
    with pytest.raises(HpccError):
        read_token(world.directory / "link")
    if os.geteuid() == 0:
        os.chown(token, 4321, -1)
        with pytest.raises(CallerError):
            read_token(token)


async def test_a_worker_without_a_certificate_says_what_to_do(world: World) -> None:
    world.farm.worker_fields = {"enrol_at": "", "enrol_token_file": ""}
    with pytest.raises(CallerError, match="hpcc worker enrol"):
        async with world.farm.serving():
            pass


async def test_the_operators_commands_enrol_list_and_revoke(
    world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import json
    from dataclasses import asdict

    from hpcc.cli.main import main

    caplog.set_level(logging.ERROR)
    config = world.directory / "scheduler.json"
    config.touch(mode=0o600)
    values = {k: v for k, v in asdict(world.farm.scheduler_config).items() if v != Path()}
    config.write_text(json.dumps(values, default=str))
    authority = world.directory / "scheduler.crt"
    authority.write_text(world.farm.scheduler.certificate_pem)

    async def hpcc(*argv: str) -> str:
        assert await asyncio.to_thread(main, argv) == 0
        return capsys.readouterr().out

    named = ("--config", str(config))
    token = world.directory / "token"
    token.touch(mode=0o600)
    token.write_text(await hpcc("scheduler", "enrol-token", "--valid", "30m", *named))
    said = await hpcc(
        "worker", "enrol", "--scheduler", f"127.0.0.1:{world.farm.scheduler.port}",
        "--ca", str(authority), "--token-file", str(token), "--name", "w9",
        "--keys", str(world.directory / "k9"),
    )  # fmt: skip
    assert f'"scheduler": "127.0.0.1:{world.farm.scheduler.worker_port}"' in said
    assert "enrolled" in await hpcc("scheduler", "workers", *named)
    assert "w9 is refused" in await hpcc("scheduler", "revoke-worker", "w9", *named)
    assert "revoked" in await hpcc("scheduler", "workers", *named)


async def test_any_schedulers_certificate_will_do_among_several(
    world: World, tmp_path: Path
) -> None:
    other = load_or_create_tls(tmp_path / "other", TLS_NAME, clock=SystemClock())
    here, token = f"127.0.0.1:{world.farm.scheduler.port}", await world.token()
    with pytest.raises(UnavailableError, match="it shows another certificate than"):
        await enrol_worker(
            world.directory / "k",
            scheduler=here,
            certificate_pem=other.certificate_pem,
            token=token,
            worker_id="w7",
        )
    # The token was sent to nobody, and is good. One address, the certificates of all.
    certificates = other.certificate_pem + world.peer.certificate_pem
    identity, port = await enrol_worker(
        world.directory / "k",
        scheduler=here,
        certificate_pem=certificates,
        token=token,
        worker_id="w7",
    )
    assert (identity.worker_id, port) == ("w7", world.farm.scheduler.worker_port)
    # Several addresses, of which the first one is away.
    await enrol_worker(
        world.directory / "k8",
        scheduler=f"127.0.0.1:1,{here}",
        certificate_pem=certificates,
        token=await world.token(),
        worker_id="w8",
    )
