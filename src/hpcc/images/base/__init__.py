"""Shared parts of reading and building images: limits, locks, the strict tar reader.

The tar reader rejects every entry that it does not understand. This package may not import `oci`
or `assembly`.
"""
