"""Warm guests: which are kept, who waits for one, which are retired.

`core` and `queue` decide and do no I/O; `pool` does what they decide. A guest never serves a second
trust domain.
"""
