"""What a worker's heartbeats may tell of its trail: little, and no name of a tenant's object."""

from __future__ import annotations

from hpcc.ports import SecurityEvent
from hpcc.rpc.base.channel import MAX_SMALL_BYTES
from hpcc.rpc.scheduler.recent_events import MAX_NOTED, noted_messages
from hpcc.worker.base.noted_events import NotedEvents


def test_no_digest_of_an_action_leaves_the_worker() -> None:
    noted = NotedEvents()
    fields = (("action", f"{'a' * 64}/142"), ("guest", "g1"), ("cause", "guest-silent"))
    noted.put(SecurityEvent(name="guest-lost-in-compile", at=1.0, tenant="acme", fields=fields))
    (one,) = noted.after(0)
    assert one.event.fields == fields[1:]
    assert "a" * 64 not in str(noted_messages([one.event]))


def test_the_longest_events_leave_a_heartbeat_room_for_the_rest() -> None:
    noted, long = NotedEvents(), "\U0001f600" * 4096
    for number in range(MAX_NOTED):
        name = f"kind-{number}"
        noted.put(
            SecurityEvent(name=name, at=1.0, tenant=long, peer=long, fields=((long, long),) * 9)
        )
    found = noted.after(0)
    assert [one.event.name for one in found] == [f"kind-{n}" for n in range(MAX_NOTED)]
    size = sum(m.ByteSize() for m in noted_messages(one.event for one in found))
    assert size < MAX_SMALL_BYTES // 2
