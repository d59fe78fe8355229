"""Calls that a gateway passes to a worker.

It parses only the part of a request that determines its target, within limits of size and time.
It adds no rights to a call and stores nothing.
"""
