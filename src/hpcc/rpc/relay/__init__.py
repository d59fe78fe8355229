"""Calls that a gateway passes on to a worker.

Of a request it parses only what says where it goes, within bounds of size and time. It adds no
right to a call and stores nothing.
"""
