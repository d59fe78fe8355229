"""What each check of an object says: it holds, it fails, or it was not seen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.cli.base import farm_object as module
from hpcc.cli.base.farm_object import MAX_FETCHED_BYTES, CheckState, FarmObject, FarmObjects
from hpcc.config.paths import Paths
from hpcc.core import (
    ALL_SHARING,
    PRIVATE_ONLY,
    Blob,
    Digest,
    GuestReuse,
    HpccError,
    IntegrityError,
    Isolation,
    NotFoundError,
    SharingPolicy,
    TenantId,
)
from hpcc.identity.result_keys import ResultKeys
from hpcc.identity.results import ResultSigner
from hpcc.ports import SystemClock
from hpcc.reapi.result import ResultOutput, ResultRecord
from hpcc.reapi.signed import ResultScope
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.reapi.explanation import Decision, Explanation, ResultDifference
from hpcc_testkit.guests.objects import ACTION, IMAGE, ROW, farm_object

ACME = TenantId("acme")
RECORD = farm_object().record


class Client:
    """A worker's answers: a blob, an explanation, or an error."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    async def download(self, digests: Iterable[Digest]) -> dict[Digest, Blob]:
        if isinstance(self._answer, HpccError):
            raise self._answer
        return {digest: Blob.of(b"") for digest in digests}

    async def explain(self, action: Digest) -> Explanation:
        del action
        if isinstance(self._answer, HpccError):
            raise self._answer
        return cast("Explanation", self._answer)


def routed(**changes: object) -> Any:
    values: dict[str, object] = {
        "principal": "ann", "minimum_isolation": Isolation.QEMU_KVM,
        "guest_reuse": GuestReuse.PRINCIPAL, "sharing": ALL_SHARING, **changes,
    }  # fmt: skip
    return SimpleNamespace(tenant=ACME, route=SimpleNamespace(**values))


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (None, CheckState.HOLDS),
        (IntegrityError("the blob is another one"), CheckState.FAILS),
        (NotFoundError("evicted"), CheckState.UNKNOWN),
        (UnavailableError("away"), CheckState.UNKNOWN),
    ],
    ids=["good", "changed", "evicted", "away"],
)
async def test_bytes_hold_only_if_they_were_fetched_and_compared(
    answer: object, state: CheckState
) -> None:
    assert (await module._bytes(cast("Any", Client(answer)), RECORD)).state is state


async def test_outputs_that_are_too_large_are_not_fetched() -> None:
    large = replace(RECORD, outputs=(ResultOutput("a.o", Digest("0" * 64, MAX_FETCHED_BYTES + 1)),))
    never = Client(AssertionError("it was asked"))
    assert (await module._bytes(cast("Any", never), large)).state is CheckState.UNKNOWN


async def signature_of(record: ResultRecord, listed: bytes | HpccError | None) -> CheckState:
    async def ask(tenant: TenantId, kid: str) -> bytes | None:
        del tenant, kid
        if isinstance(listed, HpccError):
            raise listed
        return listed

    keys = ResultKeys(ask, SystemClock())
    objects = SimpleNamespace(_clock=SystemClock())
    check = await FarmObjects._signature(
        cast("Any", objects), cast("Any", SimpleNamespace(result_keys=keys)), routed(), ACTION,
        record,
    )  # fmt: skip
    return check.state


async def test_a_signature_holds_for_a_listed_key_and_what_it_signed_only() -> None:
    signer = ResultSigner(Ed25519PrivateKey.generate(), SystemClock())
    unsigned = replace(RECORD, evidence=None, signature=None)
    signed = signer.sign(unsigned, ResultScope(tenant=ACME, action=ACTION, principal="ann"))
    assert await signature_of(signed, signer.public) is CheckState.HOLDS
    assert await signature_of(signed, None) is CheckState.FAILS, "not listed, or revoked"
    assert await signature_of(unsigned, signer.public) is CheckState.FAILS
    for changed in (
        {"guest_id": "g"}, {"worker": "w2"}, {"guest_execs_before": 9}, {"exit_code": 1},
        {"isolation": Isolation.FIRECRACKER_KVM}, {"outputs": ()}, {"image": f"sha256:{'00' * 32}"},
    ):  # fmt: skip
        other = replace(signed, **changed)
        assert await signature_of(other, signer.public) is CheckState.FAILS, changed
    elsewhere = signer.sign(unsigned, ResultScope(tenant=ACME, action=ACTION, principal="bob"))
    assert await signature_of(elsewhere, signer.public) is CheckState.FAILS, "bob's"
    assert await signature_of(signed, UnavailableError("away")) is CheckState.UNKNOWN


def test_what_the_tenant_does_not_accept_fails() -> None:
    assert module._isolation(routed(), RECORD).state is CheckState.HOLDS
    stricter = routed(minimum_isolation=Isolation.FIRECRACKER_KVM)
    weak = replace(RECORD, isolation=Isolation.LOCAL_NONE)
    assert module._isolation(stricter, weak).state is CheckState.FAILS
    assert module._guest(routed(), RECORD).state is CheckState.HOLDS
    exec_only = routed(guest_reuse=GuestReuse.EXEC)
    assert module._guest(exec_only, RECORD).state is CheckState.FAILS
    assert module._sharing(routed(), RECORD).state is CheckState.HOLDS
    assert module._sharing(routed(sharing=PRIVATE_ONLY), RECORD).state is CheckState.FAILS
    private = replace(RECORD, evidence=None)
    assert module._sharing(routed(sharing=SharingPolicy()), private).detail == "private"
    here = cast("Any", SimpleNamespace(image=IMAGE))
    assert module._image(here, RECORD).state is CheckState.HOLDS
    other = replace(RECORD, image="sha256:" + "00" * 32)
    assert module._image(here, other).state is CheckState.FAILS


async def test_another_result_of_the_same_action_is_shown() -> None:
    def asked(answer: object) -> Any:
        return module._others(cast("Any", Client(answer)), ACTION)

    differs = ResultDifference(decision=Decision.OPEN, outputs=("a.o",))
    assert (await asked(Explanation())).state is CheckState.HOLDS
    assert (await asked(Explanation(difference=differs))).state is CheckState.FAILS
    assert (await asked(HpccError("too often", reason="explain-rate"))).state is CheckState.UNKNOWN


async def test_actions_and_commands_that_are_too_large_are_not_fetched() -> None:
    never = cast("Any", SimpleNamespace())  # asking it fails
    assert await module._spec(never, Digest("0" * 64, 1 << 40)) is None
    spec = farm_object().spec
    assert spec is not None
    large = replace(spec, command=Digest("0" * 64, 1 << 40))
    assert await module._command(never, large) is None


@pytest.mark.parametrize(
    ("count", "said"), [(4, "no worker has"), (5, "4 workers that were asked")]
)
async def test_workers_that_were_not_asked_are_not_said_to_have_nothing(
    tmp_path: Path, count: int, said: str
) -> None:
    async def worker() -> int:
        return 0

    async def others(_: int) -> list[int]:
        return list(range(1, count))

    connection = SimpleNamespace(
        worker=worker, may_have_others=lambda _: True, places=SimpleNamespace(others=others)
    )

    class Missing(FarmObjects):
        async def _connect(self) -> Any:
            return connection

        async def _at(self, *_: object) -> FarmObject:
            raise NotFoundError("none")

    async with Missing(Paths.from_env({"HPCC_DIR": str(tmp_path)}), SystemClock()) as objects:
        with pytest.raises(NotFoundError, match=said):
            await objects.object(ACTION)


def test_a_row_is_named_and_never_taken_for_checked() -> None:
    check = module._row(RECORD)
    assert (check.state, check.detail) == (CheckState.UNKNOWN, ROW)
    assert module._row(replace(RECORD, evidence=None)).state is CheckState.UNKNOWN


class _Quick(SystemClock):
    async def sleep(self, seconds: float) -> None:
        del seconds
        await asyncio.sleep(0)


class _Counting(FarmObjects):
    closed = 0

    async def _found(self, action: Digest) -> FarmObject:
        raise NotFoundError(f"no {action}")

    async def _close(self) -> None:
        self.closed += 1
        await super()._close()


async def test_a_login_is_given_up_when_nobody_asks_any_more(tmp_path: Path) -> None:
    paths = Paths.from_env({"HPCC_DIR": str(tmp_path)})
    async with _Counting(paths, _Quick()) as objects:
        for _ in range(2):
            with pytest.raises(NotFoundError):
                await objects.object(ACTION)
        async with asyncio.timeout(30):
            while not objects.closed:  # noqa: ASYNC110 - another task makes it so
                await asyncio.sleep(0)
        assert objects.closed == 1
    async with _Counting(paths, SystemClock()) as objects:
        with pytest.raises(NotFoundError):
            await objects.object(ACTION)
    assert objects.closed == 1, "the end does not wait a minute"
