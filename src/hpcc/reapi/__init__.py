"""REAPI v2 as a pure core: canonical encoding and bounded parsing of everything in the key.

Equal values give equal bytes. A change of meaning or encoding raises `ACTION_FORMAT`. Parsers raise
one documented error, in bounded time and memory.
"""
