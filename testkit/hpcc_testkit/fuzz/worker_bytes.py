"""What clients and workers read of one another beside REAPI: claims, notes and explanations."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as reapi
from buildgrid.common.protos.google.devtools.remoteworkers.v1test2 import bots_pb2 as bots
from google.protobuf.message import DecodeError

from hpcc._proto import explain_pb2, meeting_pb2
from hpcc.core import Digest, GuestReuse, IntegrityError, Isolation
from hpcc.reapi.claims import ResultClaim, Voter
from hpcc.reapi.delta import common_prefix
from hpcc.reapi.limits import ReapiError
from hpcc.rpc.engine.messages import MAX_LEASES, LeaseEnd, parse_session
from hpcc.rpc.reapi.explanation import (
    MAX_FLAGS,
    MAX_OUTPUTS,
    MAX_PATHS,
    Decision,
    Explanation,
    NearAction,
    ResultDifference,
    explain_message,
    explanation_of,
)
from hpcc.rpc.reapi.meeting import (
    MAX_CARRIED,
    MAX_NAMED,
    MAX_NOTES,
    MAX_USE_BYTES,
    MAX_USES,
    Known,
    Made,
    Use,
    carried,
    carried_claims,
    encode_known,
    encode_notes,
    encode_uses,
    parse_look,
    parse_notes,
    parse_uses,
)
from hpcc.worker.engine.book import LeaseBook
from hpcc.worker.explain.sections import (
    differing_section,
    differing_sections,
)


def meeting(data: bytes) -> None:
    """What a worker says of an action, what a client notes, and the claims of a call."""
    assert len(carried_claims(data)) <= MAX_CARRIED
    with suppress(ReapiError):
        known = parse_look(data).known
        if known is not None:
            assert len(known.workers) <= MAX_NAMED
            assert all("/" not in name for name in known.workers)
            assert parse_look(encode_known(known).SerializeToString()).known == known
    with suppress(ReapiError, DecodeError):
        made = parse_notes(meeting_pb2.NoteRequest.FromString(data))
        assert len(made) <= MAX_NOTES
        assert parse_notes(encode_notes("t", made)) == made
    with suppress(ReapiError, DecodeError):
        uses = parse_uses(meeting_pb2.UsedRequest.FromString(data))
        assert len(uses) <= MAX_USES
        assert all(len(use.result) <= MAX_USE_BYTES for use in uses)
        assert parse_uses(encode_uses("t", uses)) == uses


def meeting_seeds() -> Mapping[str, bytes]:
    """Return claims, and messages with and without them."""
    claim = ResultClaim(
        result="ab" * 32, voter=Voter(pseudonym="0" * 32, epoch="k"), guest_id="g",
        execs_before=1, is_overlapped=False, isolation=Isolation.QEMU_KVM,
        reuse=GuestReuse.PRINCIPAL, snapshot="", row="cd" * 16, made_at_ms=1, key_id="ef" * 16,
        signature=b"s" * 64,
    )  # fmt: skip
    note = encode_notes("t", [Made(Digest.of(b"a"), "w1"), Made(Digest.of(b"b"), "w-2.x")])
    return {
        "claims": carried([claim, claim]),
        "known": encode_known(Known(("w1", "w-2.x"), (claim,))).SerializeToString(),
        "unknown": encode_known(Known((), ())).SerializeToString(),
        "notes": note.SerializeToString(),
        "uses": encode_uses("t", [Use(Digest.of(b"a"), b"result")]).SerializeToString(),
    }


def explanation(data: bytes) -> None:
    """A worker's explanation, at the person who asked."""
    try:
        found = explanation_of(explain_pb2.ExplainResponse.FromString(data))
    except (DecodeError, IntegrityError):
        return
    texts = [found.shared, found.accepts]
    if found.difference is not None:
        texts += [*found.difference.outputs, found.difference.section]
        assert len(found.difference.outputs) <= MAX_OUTPUTS
    if found.nearest is not None:
        texts += [*found.nearest.paths, *found.nearest.flags, found.nearest.sharing]
        assert len(found.nearest.paths) <= MAX_PATHS
        assert len(found.nearest.flags) <= MAX_FLAGS
    assert all(text.isprintable() for text in texts)


def explanation_seeds() -> Mapping[str, bytes]:
    """Return a whole answer and an empty one."""
    near = NearAction(
        at=1000, sharing="agreed(2)", is_other_directory=True, is_other_environment=False,
        flags=("-D", "-O"), is_reordered=False, paths=("config.h", "a b.h"), more_paths=3,
        equal=213, only_here=1, only_there=2,
    )  # fmt: skip
    difference = ResultDifference(
        decision=Decision.REPEATED, is_other=True, outputs=("a.o", "stderr"), section=".text"
    )
    whole = Explanation(shared="fresh", accepts="agreed", difference=difference, nearest=near)
    return {
        "whole": explain_message(whole).SerializeToString(),
        "nothing": explain_message(Explanation()).SerializeToString(),
    }


def object_sections(data: bytes) -> None:
    """Two object files of guests, in which a section that differs is looked for."""
    mine, _, other = data.partition(b"\n---\n")
    name = differing_section(mine, other)
    assert len(name) <= 64
    assert name.isprintable()
    assert not differing_section(mine, mine)
    found = differing_sections(mine, other)
    if found is not None:
        assert all(n.isprintable() and len(n) <= 64 for n in (*found.changed, *found.single))
        assert not name or name in found.changed
    at = common_prefix(mine, other)
    assert mine[:at] == other[:at]
    assert mine == other or mine[at : at + 1] != other[at : at + 1]


def object_sections_seeds() -> Mapping[str, bytes]:
    """Return pairs of small object files of both classes and orders."""
    return {
        f"{bits}{order}": b"\n---\n".join(_elf(bits, order, text) for text in (b"ab", b"ac"))
        for bits in (32, 64)
        for order in "<>"
    }


def _elf(bits: int, order: str, text: bytes) -> bytes:
    names = b"\0.text\0.shstrtab\0"
    head = 64 if bits == 64 else 52
    entry, form = (64, "IIQQQQIIQQ") if bits == 64 else (40, "IIIIIIIIII")
    sections = [(0, 0, 0, 0), (1, 1, head, len(text)), (7, 3, head + len(text), len(names))]
    at = head + len(text) + len(names)
    table = b"".join(
        struct.pack(order + form, name, kind, 0, 0, offset, size, 0, 0, 1, 0)
        for name, kind, offset, size in sections
    )
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    word = "Q" if bits == 64 else "I"
    header = ident + struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        1, 62, 1, 0, 0, at, 0, head, 0, 0, entry, len(sections), 2,
    )  # fmt: skip
    return header + text + names + table


def engine_session(data: bytes) -> None:
    """The answer of a foreign engine to a bot, and what the bot makes of it."""
    with suppress(IntegrityError):
        session = parse_session(data)
        assert len(session.leases) <= MAX_LEASES
        assert all(lease.id.isprintable() and lease.id for lease in session.leases)
        book = LeaseBook(2)
        for _ in range(2):
            news = book.heard(session.leases)
            assert book.running <= book.capacity
            for held in news.begun:
                book.ended(held, LeaseEnd(result=data))
            assert len(book.report()) == len(book)
        book.heard(())
        assert len(book) == 0


def _lease(name: str, state: bots.LeaseState.ValueType) -> bots.Lease:
    return bots.Lease(id=name, state=state)


def engine_session_seeds() -> Mapping[str, bytes]:
    """Return sessions with an action, with a digest, with several leases, and with none."""
    action, named = _lease("m/a", bots.LeaseState.ACTIVE), _lease("m/b", bots.LeaseState.PENDING)
    action.payload.Pack(reapi.Action(salt=b"s"))
    named.payload.Pack(reapi.Digest(hash="0" * 64, size_bytes=1))
    sessions = {"none": [], "action": [action], "digest": [named], "both": [action, named]}
    return {
        name: bots.BotSession(name="m/1", version="1", leases=leases).SerializeToString()
        for name, leases in sessions.items()
    }
