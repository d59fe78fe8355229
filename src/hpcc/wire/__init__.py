"""Protocols without I/O: bytes in, values out."""
