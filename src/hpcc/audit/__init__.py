"""The append-only, hash-chained record of who compiled what, where and under which isolation."""
