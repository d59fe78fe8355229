"""The front on a pipe with scripted connections: which it serves and which it refuses."""

from __future__ import annotations

import queue
from collections.abc import Callable

from hpcc.cache.base.api import CompileRequest, Done, Exec, Finish, Run, RunReport
from hpcc.daemon.accept_threads import AcceptThreads
from hpcc.daemon.front import Front
from hpcc.daemon.pipe_listener import LauncherPipeListener
from hpcc.ports import SystemClock
from hpcc.wire import launcher as wire
from hpcc.wire.launcher_version import encode_version

OWNER, PLACE = "S-1-5-21-1-2-3-1001", (3, 4)


class Talk:
    """A connection that yields each of these byte strings once, and then its end."""

    def __init__(self, *said: bytes, user: str = OWNER) -> None:
        self.said, self.user = list(said), user
        self.sent = b""
        self.is_closed = False

    def receive(self, size: int, wait_ms: int | None) -> bytes:
        if not self.said:
            return b""
        data, rest = self.said[0][:size], self.said[0][size:]
        self.said[:1] = [rest] if rest else []
        return data

    def send(self, data: bytes, wait_ms: int) -> None:
        self.sent += data

    def client(self) -> str:
        return self.user

    def is_gone(self) -> bool:
        return False

    def cancel(self) -> None:
        return

    def close(self) -> None:
        self.is_closed = True


class Door:
    def __init__(self) -> None:
        self.waiting: queue.Queue[Talk | None] = queue.Queue()

    def accept(self) -> Talk | None:
        return self.waiting.get()

    def close(self) -> None:
        self.waiting.put(None)


class Handler:
    def __init__(self, answer: Callable[[CompileRequest], Done | Exec | Run]) -> None:
        self.answer = answer
        self.notes: list[object] = []

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        return self.answer(request)

    def finish(self, request: CompileRequest, run: Run, report: RunReport) -> Finish:
        self.notes.append(report)
        return Finish(b"", b"more")

    def abandon(self, request: CompileRequest, run: Run) -> None:
        self.notes.append("abandoned")

    def counters(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        return


def request(*, cwd_id: tuple[int, int] = PLACE, build_id: bytes = wire.BUILD_ID.encode()) -> bytes:
    return wire.encode_request(
        wire.LauncherRequest(
            build_id,
            b"C:\\b\\cl.exe",
            b"C:\\w",
            (b"cl", b"/c"),
            (),
            0,
            0,
            False,
            cwd_id,
            (0, 0),
            (0, 0),
        )
    )


def front_of(handler: Handler) -> Front:
    listener = LauncherPipeListener(
        Door(), owner=OWNER, directory_id=lambda _: PLACE, clock=SystemClock()
    )
    return Front(listener, handler, on_admin=lambda body: body.upper(), on_version=lambda: False)


def serve(front: Front, talk: Talk, *, is_busy: bool = False) -> None:
    """Serve one connection on this thread, as an accepting thread would."""
    listener = front._listener
    assert isinstance(listener, LauncherPipeListener)
    listener._serve = front._serve_connection
    listener._serve_end(talk, is_busy)


def served(talk: Talk, handler: Handler | None = None, *, is_busy: bool = False) -> dict[str, int]:
    front = front_of(handler or Handler(lambda _: Exec("scripted")))
    serve(front, talk, is_busy=is_busy)
    assert talk.is_closed
    assert front.in_flight() == (0, 0)
    return front.snapshot()


def test_a_request_in_pieces_is_answered() -> None:
    frame = request()
    talk = Talk(frame[:5], frame[5:40], frame[40:])
    assert served(talk, Handler(lambda _: Done(0, b"o", b""))) == {"requests": 1}
    assert talk.sent == wire.encode_done(wire.LauncherDone(0, b"o", b""))


def test_another_user_is_told_nothing() -> None:
    talk = Talk(request(), user="S-1-5-18")
    assert served(talk) == {"refused.foreign-user": 1}
    assert talk.sent == b""


def test_a_directory_that_is_another_one_here_is_left_to_the_compiler() -> None:
    talk = Talk(request(cwd_id=(3, 5)))
    assert served(talk) == {"exec.other-directory": 1}
    assert talk.sent == wire.encode_exec("other-directory")


def test_where_nobody_else_could_come_the_compile_is_left_to_the_compiler() -> None:
    talk = Talk(request())
    assert served(talk, is_busy=True) == {"exec.daemon-busy": 1}


def test_another_build_is_answered_with_ours() -> None:
    talk = Talk(request(build_id=b"other"))
    assert served(talk) == {"refused.other-version": 1}
    assert talk.sent == encode_version(wire.BUILD_ID, is_draining=False)


def test_what_is_no_frame_of_ours_is_refused() -> None:
    for data in (b"GET / HTTP/1.1\r\n", request() + b"x", wire.WAIT_FRAME,
                 b"hpc1\1\0\0\0\xff\xff\xff\xff"):  # fmt: skip
        talk = Talk(data)
        assert served(talk) == {"refused.malformed-frame": 1}
        assert talk.sent == b""


def test_a_cut_request_and_a_silent_client_are_lost() -> None:
    assert served(Talk(request()[:-1])) == {"lost.launcher": 1}
    assert served(Talk()) == {"lost.launcher": 1}


def test_a_run_ends_with_its_report_or_is_abandoned() -> None:
    def answer(asked: CompileRequest) -> Run:
        return Run((asked.compiler, b"/c"), None)

    report = wire.LauncherReport(1, 0, b"out", b"err", is_truncated=False)
    handler = Handler(answer)
    talk = Talk(request(), wire.encode_report(report))
    served(talk, handler)
    assert handler.notes == [RunReport(*report)]
    assert talk.sent.endswith(wire.encode_finish(b"", b"more"))
    for end in ((), (b"nonsense of some length",), (request(),)):
        handler = Handler(answer)
        counts = served(Talk(request(), *end), handler)
        assert handler.notes == ["abandoned"]
        assert counts["lost.launcher"] == 1


def test_a_fault_of_the_handler_costs_a_local_compile() -> None:
    def answer(_: CompileRequest) -> Done:
        raise RuntimeError

    talk = Talk(request())
    assert served(talk, Handler(answer))["exec.internal-error"] == 1
    assert talk.sent == wire.encode_exec("internal-error")


def test_a_command_is_answered() -> None:
    talk = Talk(wire.frame(wire.ADMIN, b"status"))
    served(talk)
    assert talk.sent == wire.frame(wire.ADMIN_REPLY, b"STATUS")


def test_a_daemon_does_not_end_before_its_answer_to_a_command_is_sent() -> None:
    """`hpcc stop` failed if the daemon was gone before the answer."""
    seen: list[bool] = []

    class Stopping(Talk):
        def send(self, data: bytes, wait_ms: int) -> None:
            seen.append(front.is_idle())
            super().send(data, wait_ms)

    for data in (wire.frame(wire.ADMIN, b"stop"), request(build_id=b"other")):
        front = front_of(Handler(lambda _: Exec("scripted")))
        serve(front, Stopping(data))
        assert front.is_idle()
    assert seen == [False, False]


def test_with_its_last_thread_a_front_says_that_it_is_busy() -> None:
    threads = AcceptThreads(lambda: True, most=1, idle=1)
    threads._threads = threads._idle = 1
    assert threads.become_busy()


def test_what_is_under_way_is_counted_where_it_is() -> None:
    """A daemon that stops waits for these requests."""
    seen: list[tuple[int, int]] = []

    def answer(_: CompileRequest) -> Run:
        seen.append(front.in_flight())
        return Run((b"C:\\b\\cl.exe", b"/c"), token=None)

    class Running(Talk):
        def receive(self, size: int, wait_ms: int | None) -> bytes:
            seen.append(front.in_flight())
            return super().receive(size, wait_ms)

    front = front_of(Handler(answer))
    serve(front, Running(request()))
    # Before its request is whole, a launcher waits for nothing yet.
    assert seen[0] == (0, 0)
    assert (1, 0) in seen
    assert seen[-1] == (0, 1)
    assert front.in_flight() == (0, 0)
