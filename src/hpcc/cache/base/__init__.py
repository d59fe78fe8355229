"""Value types of the cache, and facts about files.

Everything in the cache may import this room, and it imports no other room. It holds no decision
about a compile, only what decisions are made of: digests, stats, manifests, counters.
"""
