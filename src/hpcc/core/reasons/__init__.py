"""Why a compile was not cached, not kept, not sent to the farm or not shared.

Each kind of refusal is one enum, and a member is its word: `BypassReason.PCH == "pch"`. Counters,
records and JSON hold these words, so a word never changes its meaning. A member has a text, a
remedy and the anchor of its row in `docs/reasons.md`, which `tools/gen_reasons.py` generates.
To add a reason, add a member, use it where the refusal happens, and run `make gen`. The guest's
agent does not contain this room, because a changed text must not change the agent's digest.
"""
