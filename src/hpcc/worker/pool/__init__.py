"""Warm guests: which are kept, which waiter gets one, which are retired.

`core` and `queue` decide and do no I/O; `pool` carries out their decisions. A guest never serves a
second trust domain.
"""
