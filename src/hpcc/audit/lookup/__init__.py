"""Finds records: one index for each sealed segment, and the reader that proves each hit.

An index only finds. What a command prints was read from a segment and compared with a hash that the
worker signed. An index whose bytes are not the sealed ones answers nothing.
"""
