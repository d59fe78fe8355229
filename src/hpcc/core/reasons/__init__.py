"""Why a compile was not cached, not kept, not sent to the farm or not shared.

Each kind of refusal is one enum. A member is its word: `BypassReason.PCH == "pch"`. Counters,
records and JSON hold these words, so a word never changes its meaning and never disappears. A
member also carries a text, a remedy and the anchor of its row in `docs/reasons.md`. That page is
generated from these enums by `tools/gen_reasons.py`. `hpcc stats` and `hpcc explain` print the
text.

To add a reason, add a member here, use the member where the refusal happens and run `make gen`.

The guest's agent does not contain this room: a changed text must not change the agent's digest,
which is a part of the farm's result keys.
"""
