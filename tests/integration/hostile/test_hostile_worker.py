"""A worker with hostile guests records each attack as an event and a row, and never as a result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hpcc.core import Blob, CallerError, InputFile, Isolation
from hpcc.ports import GuestIdentity, GuestSpec, Probe
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.tree import build_tree
from hpcc.rpc.base.errors import UnavailableError
from hpcc.runtime.channel.channel import GuestChannel
from hpcc.runtime.vm.vm import VmGuest
from hpcc_testkit.farm.in_process import IMAGE, farm_under_test
from hpcc_testkit.hostile.harness import TOKEN
from hpcc_testkit.hostile.server import HostileGuest, HostileServer

ATTACKS = {
    "output-above": "protocol-violation",
    "stdio-flood": "protocol-violation",
    "hpack-bomb": "protocol-violation",
    "status-message-of-escapes": "guest-lost",
}


class HostileRuntime:
    """Guests that are hostile processes, ended as VMs are."""

    isolation = Isolation.LOCAL_NONE

    def __init__(self, server: HostileServer) -> None:
        self._server = server
        self.attack = ""
        self.guests: list[HostileGuest] = []

    async def probe(self) -> Probe:
        return Probe(is_usable=True, isolation=self.isolation, summary="hostile")

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[VmGuest]:
        del spec
        process, sock = self._server.start("exec", self.attack)
        self.guests.append(process)
        channel = GuestChannel(sock, TOKEN)
        channel.lost.add_done_callback(lambda _: process.kill())
        identity = GuestIdentity(
            guest_id=f"hostile-{len(self.guests)}", isolation=self.isolation,
            kernel_digest="", vmm_digest="", agent_digest="",
        )  # fmt: skip
        try:
            await channel.connect()
            yield VmGuest(identity, channel, process.pid)
        finally:
            channel.close()
            process.kill()


def made(attack: str) -> list[Blob]:
    """Return the blobs of an action, the action last."""
    source = Blob.of(b"int x;\n")
    tree = build_tree([InputFile("a.c", source.digest)])
    command = CommandSpec(argv=("cc", attack), env=(), cwd="", outputs=("a.o", "b.o"), image=IMAGE)
    command_blob = Blob.of(encode_command(command))
    action = ActionSpec(command=command_blob.digest, input_root=tree.root, image=IMAGE, salt=b"t")
    directories = (Blob.of(d) for d in tree.directories.values())
    return [source, *directories, command_blob, Blob.of(encode_action(action))]


@pytest.fixture
def server() -> Iterator[HostileServer]:
    server = HostileServer()
    yield server
    server.stop()


async def test_each_attack_is_an_event_and_a_row_and_never_a_result(
    server: HostileServer, tmp_path: Path
) -> None:
    runtime = HostileRuntime(server)
    async with farm_under_test(tmp_path) as farm:
        farm.runtime = runtime  # type: ignore[assignment]  # as much of a runtime as a worker needs
        async with farm.serving(), farm.client() as client:
            for attack, cause in ATTACKS.items():
                runtime.attack = attack
                blobs = made(attack)
                await client.upload(blobs)
                for _ in range(2):
                    with pytest.raises(UnavailableError) as caught:
                        await client.execute(blobs[-1].digest, ["a.o"])
                    assert caught.value.reason == cause
                    assert str(caught.value).isprintable()
                with pytest.raises(CallerError) as refused:
                    await client.execute(blobs[-1].digest, ["a.o"])
                assert refused.value.reason == "quarantined"
        assert all(guest.is_killed for guest in runtime.guests)
    causes = [cause for cause in ATTACKS.values() for _ in range(2)]
    assert [(r.cache_status, r.reason) for r in farm.audit.rows] == [
        ("abandoned", cause) for cause in causes
    ]
    lost = [e for e in farm.audit.events if e.name == "guest-lost-in-compile"]
    assert [dict(e.fields)["cause"] for e in lost] == causes
    assert all(text.isprintable() for e in farm.audit.events for _, text in e.fields)
