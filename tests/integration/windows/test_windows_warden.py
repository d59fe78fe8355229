"""A warden on Windows, under Wine: a worker's channel and a warden, each in CPython for Windows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import hpcc
from hpcc.runtime.windows.agent import build_agent_zip
from hpcc_testkit.windows.agent import windows_python
from hpcc_testkit.windows.wine import Wine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# The worker's end, and guests that answer as they should, lie, and go away.
_WORKER = r"""
import asyncio, socket, sys
from pathlib import Path
from grpclib.server import Server
from hpcc._proto import agent_pb2 as pb
from hpcc._proto.agent_grpc import AgentServiceBase
from hpcc.core import ExecLimits, ExecRequest
from hpcc.ports import GuestLostError
from hpcc.runtime.channel.channel import GuestChannel
from hpcc.runtime.channel.warden_windows import WindowsWardens
from hpcc.wire.link import GuestLink

TOKEN = bytes(range(32))
LAUNCH = WindowsWardens(Path(sys.argv[1])).launch
REQUEST = ExecRequest(exec_id="x", argv=("cl",), env=(), cwd="", inputs=(), outputs=("o",), limits=ExecLimits())

class Guest(AgentServiceBase):
    async def Exec(self, stream):
        await stream.recv_message()
        if self.lies:
            await stream.send_message(pb.ServerFrame(need=pb.Need(digests=[bytes(32)])))
            return
        await stream.send_message(pb.ServerFrame(need=pb.Need()))
        while await stream.recv_message() is not None:
            pass
        await stream.send_message(pb.ServerFrame(stdio=pb.Stdio(stream=1, data=b"warning")))
        await stream.send_message(pb.ServerFrame(result=pb.Result(reason=1)))
        for last in (False, True):
            chunk = pb.OutputChunk(path="o", data=bytes(65536), last=last)
            await stream.send_message(pb.ServerFrame(output=chunk))

async def guest(lies):
    host, sock = socket.socketpair()
    sock.settimeout(0)
    channel = GuestChannel(host, TOKEN, launch=LAUNCH)
    async def play():
        loop, link, found = asyncio.get_running_loop(), GuestLink(TOKEN), None
        while found is None:
            found = link.feed(await loop.sock_recv(sock, 65536))
        await loop.sock_sendall(sock, found[0])
        service = Guest()
        service.lies = lies
        await loop.connect_accepted_socket(Server([service])._protocol_factory, sock)
    task = asyncio.create_task(play())
    async with asyncio.timeout(200):
        await channel.connect()
    await task
    assert channel.warden_pid and channel._ends.cpu_seconds() > 0
    return channel

async def lost(channel):
    async with asyncio.timeout(100):
        return await asyncio.shield(channel.lost)

async def main():
    honest, lying = await asyncio.gather(guest(False), guest(True))
    events = [type(e).__name__ async for e in honest.exec(REQUEST, None)]
    assert events == ["StdioEvent", "ResultEvent", "OutputEvent", "OutputEvent"], events
    try:
        events = [e async for e in lying.exec(REQUEST, None)]
        raise AssertionError(events)
    except GuestLostError as error:
        assert error.reason == "protocol-violation", error
    lying.close()
    assert not honest.lost.done()
    honest._ends._process.kill()  # with its stub goes the job, and the warden in it
    assert (await lost(honest)).startswith("warden-died"), honest.lost
    honest.close()
    absent = WindowsWardens(Path(sys.argv[1]), Path("absent.py")).launch
    channel = GuestChannel(socket.socketpair()[0], TOKEN, launch=absent)
    try:
        async with asyncio.timeout(100):
            await channel.connect()
        raise AssertionError("connected")
    except GuestLostError as error:
        assert error.reason == "warden-died", error
    channel.close()
    print("good", flush=True)

asyncio.run(main())
"""


def test_what_a_guest_says_is_read_in_a_process_of_its_own(
    wine: Wine, stub: Path, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    shutil.copytree(windows_python(), python)
    packages = tmp_path / "packages.zip"
    packages.write_bytes(build_agent_zip())
    source = Path(hpcc.__file__).parents[1]
    paths = ["python313.zip", ".", *("Z:" + str(p).replace("/", "\\") for p in (source, packages))]
    (python / "python313._pth").write_text("\n".join(paths))
    (tmp_path / "worker.py").write_text(_WORKER)
    done = wine.run(
        python / "python.exe", "-I", "-B", "-u", str(tmp_path / "worker.py"), f"Z:{stub}",
        cwd=tmp_path, seconds=400,
    )  # fmt: skip
    assert done.stdout.split() == [b"good"], (done.returncode, done.stderr.decode()[-3000:])
    assert wine.processes("__main__.py") == []
