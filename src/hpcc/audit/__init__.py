"""The append-only, hash-chained record of who compiled what, where and under which isolation.

The spool of segments is authoritative; the SQLite index beside it can be rebuilt at any time. A row
is durable when `append` returns, so that its caller can release the result. Nothing here deletes or
rewrites single rows; old segments are removed only after all sinks have them.
"""
