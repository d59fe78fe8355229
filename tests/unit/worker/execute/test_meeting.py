"""Notes of which worker has a result: nobody replaces a colleague's, and memory is bounded."""

from __future__ import annotations

from hpcc.core import Digest, TenantId
from hpcc.rpc.reapi.meeting import MAX_NAMED, Made
from hpcc.worker.execute.meeting import NoteBook

ACME, OTHER = TenantId("acme"), TenantId("other")
ACTIONS = [Digest.of(bytes([n])) for n in range(20)]


def workers(book: NoteBook, who: str, number: int = 0, *, is_private: bool = False) -> list[str]:
    return list(book.workers(ACME, who, ACTIONS[number], is_private=is_private))


def test_a_principals_own_note_comes_first_and_then_the_latest() -> None:
    book = NoteBook()
    for who, worker in (("ann", "w1"), ("bob", "w2"), ("carol", "w3"), ("ann", "w4")):
        book.add(ACME, who, Made(ACTIONS[0], worker))
    assert workers(book, "bob") == ["w2", "w4", "w3"]
    assert workers(book, "dave") == ["w4", "w3", "w2"]
    assert workers(book, "ann", 1) == []
    assert book.workers(OTHER, "ann", ACTIONS[0], is_private=False) == ()


def test_who_shares_nothing_gets_no_colleagues_note() -> None:
    book = NoteBook()
    book.add(ACME, "ann", Made(ACTIONS[0], "w1"))
    assert workers(book, "bob", is_private=True) == []
    assert workers(book, "ann", is_private=True) == ["w1"]


def test_one_member_replaces_its_own_note_only() -> None:
    book = NoteBook()
    book.add(ACME, "ann", Made(ACTIONS[0], "w1"))
    for number in range(50):
        book.add(ACME, "mallory", Made(ACTIONS[0], f"x{number}"))
    assert workers(book, "ann") == ["w1", "x49"]
    for number in range(9):
        book.add(ACME, f"m{number}", Made(ACTIONS[0], "w2"))
    assert len(book._tenants[ACME][ACTIONS[0]]) == MAX_NAMED


def test_a_full_book_takes_from_the_tenant_that_has_most() -> None:
    book = NoteBook(max_notes=4)
    book.add(ACME, "ann", Made(ACTIONS[0], "w1"))
    for action in ACTIONS[1:]:
        book.add(OTHER, "flood", Made(action, "w2"))
    assert workers(book, "ann") == ["w1"]
    assert len(book._tenants[OTHER]) == 3
    assert book._count == 4
