"""The append-only, hash-chained record of who compiled what, where and under which isolation.

A spool of segments is the truth, a SQLite index beside it can be rebuilt at any time. A row is
durable when `append` returns, so that its caller can release the result. Nothing here deletes or
rewrites a row; old segments go only after their sinks hold them.
"""
