"""Protocols without I/O: bytes in, values out.

A length is checked before memory of that length is allocated. A parser returns a value or raises
its one documented error.
"""
