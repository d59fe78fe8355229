"""A pod's service-account token enrols that pod as a worker of its pool, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import CallerError, HpccError, NotFoundError
from hpcc.identity.key_ring import Sealer
from hpcc.identity.worker_ca import new_worker_key, read_pass
from hpcc.rpc.scheduler.enrolment import WorkerGrant
from hpcc.scheduler.base.enrolled import POD_SPACE, WORKER_SPACE, EnrolledWorker, decode
from hpcc.scheduler.base.pools import WorkerPool, read_pools
from hpcc.scheduler.enrolment import Enrolment
from hpcc_testkit.services.idp_tokens import NOW, FixedClock, MintKey, mint

KEY, OTHER = MintKey.make("k1"), MintKey.make("k1")
ISSUER = "https://kubernetes.default.svc.cluster.local"
# Of the curve P-256.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SUBJECT = "system:serviceaccount:hpcc:farm-worker"


def bound(pod: object = "farm-pool-0", **changes: object) -> dict[str, object]:
    """Return the claim that Kubernetes writes; None leaves a part out."""
    parts: dict[str, object] = {
        "namespace": "hpcc",
        "node": {"name": "n1", "uid": "8fd1"},
        "pod": {"name": pod, "uid": "5e0c"},
        "serviceaccount": {"name": "farm-worker", "uid": "14ee"},
        **changes,
    }
    return {n: v for n, v in parts.items() if v is not None}


def token(key: MintKey = KEY, **changes: object) -> str:
    claims: dict[str, object] = {
        "iss": ISSUER, "aud": ["hpcc-enrol"], "sub": SUBJECT, "jti": "1",
        "iat": int(NOW) - 10, "nbf": int(NOW) - 10, "exp": int(NOW) + 590,
        "kubernetes.io": bound(), **changes,
    }  # fmt: skip
    return mint(key, {n: v for n, v in claims.items() if v is not None})


class Farm:
    """The enrolment of a scheduler whose config file has a pool."""

    def __init__(self, directory: Path) -> None:
        self.clock, self.keys = FixedClock(), directory / "keys.json"
        self.keys.write_text(json.dumps({"keys": [KEY.jwk()]}))
        self.store = EmbeddedControlStore(directory / "s.sqlite", self.clock)
        self.enrolment = self.new()
        asyncio.run(self.enrolment.load())

    def new(self, **changes: object) -> Enrolment:
        enrol = {
            "issuer": ISSUER, "audience": "hpcc-enrol", "namespace": "hpcc",
            "service_account": "farm-worker", "keys_file": str(self.keys), **changes,
        }  # fmt: skip
        pools: tuple[WorkerPool, ...] = read_pools(
            {"cpu": {"prefix": "farm-pool-", "max_workers": 4, "enrol": enrol}}
        )
        sealer = Sealer(b"s" * 32)
        return Enrolment(self.store, sealer, self.clock, certificate_seconds=600.0, pools=pools)

    async def enrol(
        self, shown: str, name: str = "farm-pool-0", request: bytes = b""
    ) -> WorkerGrant:
        return await self.enrolment.enrol(shown, request or new_worker_key()[1], name)

    async def refusal(self, shown: str, name: str = "farm-pool-0") -> str:
        with pytest.raises(HpccError) as refused:
            await self.enrol(shown, name)
        assert shown.split(".")[1] not in str(refused.value)
        return refused.value.reason

    async def worker(self, name: str = "farm-pool-0") -> EnrolledWorker | None:
        entry = await self.store.entry_or_none(WORKER_SPACE, name)
        return None if entry is None else decode(EnrolledWorker, entry)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    with farm.store:
        yield farm


async def test_a_pod_becomes_the_worker_of_its_name(farm: Farm) -> None:
    grant = await farm.enrol(token())
    found = read_pass(x509.load_pem_x509_certificate(grant.certificate_pem))
    assert (grant.worker_id, found.worker_id) == ("farm-pool-0", "farm-pool-0")
    worker = await farm.worker()
    assert worker is not None
    assert (worker.pool, worker.key_id) == ("cpu", found.key_id)


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        # The checks of a login.
        ("", "idp-token-malformed"),
        ("x", "idp-token-malformed"),
        ("a.b.c", "idp-token-malformed"),
        ("a." + "b" * 7000 + ".c", "idp-token-oversized"),
        (token(OTHER), "idp-token-signature"),
        (token(MintKey("k2", KEY.algorithm, KEY.private)), "idp-token-unknown-key"),
        (token(iss="https://other.example"), "idp-token-issuer"),
        (token(aud=["https://kubernetes.default.svc"]), "idp-token-audience"),
        (token(aud=None), "idp-token-audience"),
        (token(exp=int(NOW) - 61), "idp-token-expired"),
        (token(iat=int(NOW) + 120, exp=int(NOW) + 300), "idp-token-not-yet"),
        (token(nbf=int(NOW) + 120), "idp-token-not-yet"),
        (token(exp=None), "idp-token-malformed"),
        (token(cnf={"jkt": "x"}), "idp-token-bound"),
        # Other service accounts, and what is not bound to a pod.
        (token(sub="system:serviceaccount:hpcc:default"), "idp-token-claim"),
        (token(sub="system:serviceaccount:other:farm-worker"), "idp-token-claim"),
        (token(sub=None), "idp-token-claim"),
        (token(**{"kubernetes.io": None}), "idp-token-claim"),
        (token(**{"kubernetes.io": "farm-pool-0"}), "idp-token-claim"),
        (token(**{"kubernetes.io": bound(pod=None)}), "idp-token-claim"),
        (token(**{"kubernetes.io": bound(pod=["farm-pool-0"])}), "idp-token-claim"),
        (token(**{"kubernetes.io": bound(namespace="other")}), "idp-token-claim"),
        (token(**{"kubernetes.io": bound(namespace=None)}), "idp-token-claim"),
        (token(**{"kubernetes.io": bound(serviceaccount={"name": "x"})}), "idp-token-claim"),
        (token(**{"kubernetes.io": bound(serviceaccount=None)}), "idp-token-claim"),
        (token(exp=int(NOW) + 7300), "idp-token-lifetime"),
        (token(**{"kubernetes.io": bound("farm-pool-1")}), "enrol-foreign-name"),
    ],
)
async def test_any_other_token_is_refused(farm: Farm, shown: str, reason: str) -> None:
    with pytest.raises(HpccError) as refused:
        await farm.enrol(shown)
    assert refused.value.reason == reason
    assert len(shown) < 10 or shown.split(".")[1] not in str(refused.value)
    assert await farm.worker() is None
    assert await farm.store.entries(POD_SPACE) == ()


@pytest.mark.parametrize(
    "name", ["w1", "farm-pool-4", "farm-pool-00", "farm-pool-", "FARM-POOL-0", "\x1b[2J"]
)
async def test_a_name_of_no_pool_needs_a_one_time_token(farm: Farm, name: str) -> None:
    shown = token(**{"kubernetes.io": bound(name)})
    with pytest.raises(HpccError) as refused:
        await farm.enrol(shown, name)
    assert refused.value.reason == "enrol-token-unknown"
    farm.enrolment = Enrolment(farm.store, Sealer(b"s" * 32), farm.clock, certificate_seconds=600.0)
    with pytest.raises(HpccError) as refused:
        await farm.enrol(token())
    assert refused.value.reason == "enrol-token-unknown", "a farm without pools takes none"


async def test_a_token_that_another_key_used_is_refused(farm: Farm) -> None:
    """Two parties have it. The same key may show it again, whose first answer was lost."""
    _, request = new_worker_key()
    shown = token()
    first = await farm.enrol(shown, request=request)
    again = await farm.enrol(shown, request=request)
    assert first.worker_id == again.worker_id
    # A signature of ES256 has a twin, and base64 without padding has spare bits.
    signed, _, signature = shown.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    twin = raw[:32] + (ORDER - int.from_bytes(raw[32:])).to_bytes(32)
    for text in (signature, base64.urlsafe_b64encode(twin).decode().rstrip("=")):
        assert await farm.refusal(f"{signed}.{text}") == "enrol-token-replayed"
    worker = await farm.worker()
    assert worker is not None
    kept = read_pass(x509.load_pem_x509_certificate(first.certificate_pem)).key_id
    assert worker.key_id == kept
    # The note goes when nobody accepts the token any more.
    farm.clock.time += 700.0
    now = {"iat": int(farm.clock.time), "nbf": None, "exp": int(farm.clock.time) + 600}
    await farm.enrol(token(**now))
    assert len(await farm.store.entries(POD_SPACE)) == 1


async def test_a_pod_that_lost_its_volume_takes_its_own_place(farm: Farm) -> None:
    first = await farm.enrol(token())
    await farm.enrol(token(jti="2"))
    with pytest.raises(HpccError) as refused:
        await farm.enrolment.admit(first.certificate_pem, "farm-pool-0")
    assert refused.value.reason == "worker-revoked"


async def test_a_pod_takes_no_place_of_a_worker_that_an_operator_enrolled(farm: Farm) -> None:
    one_time = await farm.enrolment.new_token("farm-pool-0", 60.0)
    await farm.enrol(one_time)
    assert await farm.refusal(token()) == "enrol-name-taken"


async def test_a_revoked_pod_stays_out_until_it_is_forgotten(farm: Farm) -> None:
    first = await farm.enrol(token())
    with pytest.raises(CallerError, match="revoke-worker"):
        await farm.enrolment.forget("farm-pool-0")
    await farm.enrolment.revoke("farm-pool-0")
    assert await farm.refusal(token(jti="2")) == "worker-revoked"
    await farm.enrolment.forget("farm-pool-0")
    with pytest.raises(NotFoundError):
        await farm.enrolment.forget("farm-pool-0")
    await farm.enrolment.workers()  # as every scheduler does each five seconds
    with pytest.raises(HpccError) as refused:
        await farm.enrolment.admit(first.certificate_pem, "farm-pool-0")
    assert refused.value.reason == "worker-revoked", "its old certificate is still nobody's"
    await farm.enrol(token(jti="3"))


async def test_keys_are_read_again_when_the_file_changes(
    farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    farm.keys.write_text(json.dumps({"keys": [OTHER.jwk()], "new": True}))
    assert await farm.refusal(token()) == "idp-token-signature"
    await farm.enrol(token(OTHER))
    for damaged in ("{", "[]", "9" * 5000, "[" * 5000, "x" * 300_000):
        farm.keys.write_text(damaged)
        with pytest.raises(HpccError, match="keys of pool cpu's cluster"):
            await farm.enrol(token(jti="4"))
    farm.keys.unlink()
    caplog.clear()
    with pytest.raises(HpccError, match="keys of pool cpu's cluster") as refused:
        # Anybody can write such a token: no key was there to check it with.
        await farm.enrol(token(jti="4"))
    assert str(farm.keys) not in str(refused.value)
    assert f"cannot read {farm.keys}" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": "http://cluster.example"}, "is not https"),
        ({"issuer": 7}, "pools.cpu.enrol: issuer: must be str"),
        ({"audience": ""}, "audience is not a valid name"),
        ({"namespace": "a:b"}, "namespace is not a valid name"),
        ({"service_account": "a:b"}, "service_account is not a valid name"),
        ({"keys_file": "keys.json"}, "keys_file must be an absolute path"),
        ({"ca_file": "/ca.pem"}, "exclude each other"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_an_identity_that_no_pod_can_have_is_refused(
    farm: Farm, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(CallerError, match=said):
        farm.new(**changes)
