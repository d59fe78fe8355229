"""Which leases a bot holds: answers that come late, twice, or not at all."""

from __future__ import annotations

from hpcc.core import CallerError, Digest
from hpcc.rpc.engine.messages import LeaseEnd, LeaseReport, LeaseState, ServerLease
from hpcc.worker.engine.book import LeaseBook

DONE = LeaseEnd(result=b"r")


def lease(name: str, state: LeaseState = LeaseState.ACTIVE, action: bytes = b"a") -> ServerLease:
    return ServerLease(id=name, state=state, action=action)


def echo(name: str, state: LeaseState = LeaseState.ACTIVE) -> ServerLease:
    """Return a lease as an engine repeats what the bot said."""
    return lease(name, state, b"")


def started(capacity: int = 2, *names: str) -> LeaseBook:
    book = LeaseBook(capacity)
    book.report()
    assert [h.lease.id for h in book.heard(tuple(map(lease, names))).begun] == list(names)
    return book


def test_a_new_lease_begins_once() -> None:
    book = started(2, "a")
    assert book.report() == (LeaseReport("a"),)
    assert book.heard((echo("a"),)).begun == ()
    assert (len(book), book.running) == (1, 1)


def test_an_end_is_repeated_until_the_engine_leaves_it_out() -> None:
    book = started(2, "a")
    (held,) = book._held.values()
    book.ended(held, DONE)
    assert book.has_news
    for _ in range(3):  # the answers to these are lost
        assert book.report() == (LeaseReport("a", DONE),)
        assert not book.has_news
    book.heard((echo("a", LeaseState.COMPLETED),))
    assert book.report() == (LeaseReport("a", DONE),), "it is still in the session"
    assert book.heard(()).dropped == ()
    assert len(book) == 0


def test_an_end_after_the_report_is_not_taken_for_reported() -> None:
    book = started(2, "a")
    (held,) = book._held.values()
    book.report()
    book.ended(held, DONE)
    book.heard((echo("a"),))
    assert book.has_news
    assert book.report() == (LeaseReport("a", DONE),)


def test_a_lease_that_the_engine_leaves_out_or_cancels_is_dropped() -> None:
    book = started(2, "a", "b")
    a, b = book._held.values()
    book.report()
    news = book.heard((echo("b", LeaseState.CANCELLED),))
    assert news.dropped == (a, b)
    book.ended(a, DONE)
    assert (len(book), book.report()) == (0, ()), "its result is for nobody"


def test_a_lease_that_is_given_out_again_runs_again() -> None:
    book = started(1, "a")
    (held,) = book._held.values()
    book.ended(held, LeaseEnd(error=CallerError("no")))
    book.report()
    (again,) = book.heard((lease("a"),)).begun
    assert again is not held
    assert book.report() == (LeaseReport("a"),)
    book.ended(held, DONE)
    assert book.report() == (LeaseReport("a"),), "the first one's end is not the second one's"


def test_leases_over_the_capacity_and_of_a_closed_bot_end_at_once() -> None:
    book = started(1)
    news = book.heard(tuple(map(lease, "abc")))
    assert [h.lease.id for h in news.begun] == ["a"]
    ends = {r.id: r.end and r.end.error and r.end.error.reason for r in book.report()}
    assert ends == {"a": None, "b": "busy", "c": "busy"}
    closed = LeaseBook(1, is_open=False)
    assert closed.heard((lease("a"),)).begun == ()
    (report,) = closed.report()
    assert report.end is not None
    assert report.end.error is not None
    assert report.end.error.reason == "draining"


def test_what_is_over_for_the_engine_does_not_begin() -> None:
    book = started(2)
    news = book.heard((lease("a", LeaseState.COMPLETED), lease("b", LeaseState.CANCELLED)))
    assert (news.begun, len(book)) == ((), 0)


def test_the_end_of_a_session_ends_all() -> None:
    book = started(2, "a", "b")
    a, b = book._held.values()
    book.ended(a, DONE)
    assert book.clear() == (b,)
    book.ended(b, DONE)
    assert (len(book), book.has_news, book.report()) == (0, False, ())


def test_a_digest_is_a_payload_too() -> None:
    book = started(1, "a")
    (held,) = book._held.values()
    book.ended(held, DONE)
    book.report()
    again = ServerLease(id="a", state=LeaseState.PENDING, digest=Digest.of(b"x"))
    assert len(book.heard((again,)).begun) == 1


def test_a_report_has_no_more_ends_than_a_server_takes() -> None:
    book = LeaseBook(64)
    leases = tuple(ServerLease(id=str(n), state=LeaseState.ACTIVE, action=b"a") for n in range(40))
    for held in book.heard(leases).begun:
        book.ended(held, LeaseEnd(result=bytes(150_000)))
    told = [report.end.result for report in book.report() if report.end is not None]
    assert 0 < sum(map(len, told)) <= 2 << 20
    assert book.has_news
