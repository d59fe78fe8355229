"""The stable names of what services log.

A line of a log has two readers. A person reads the sentence, which may be reworded in any commit;
a rule of a SIEM or an alert looks for a name, which may not. So the sentence is at the call, as
everywhere in Python, and this room names each sentence: `table` looks a record's sentence up,
and the other modules are the list, by the service that logs them. Example:

    _log.warning("guest %s of worker %s is lost: %s", guest, worker, reason)
    ("guest-lost", "guest %s of worker %s is lost: %s", "guest", "worker", "reason")

The words behind the sentence name its arguments. docs/events.md is made from the list, and
`tests/arch/test_events_page.py` compares both with every call of a logger in the product: a
sentence without a name, and a name without a sentence, fail there.
"""
