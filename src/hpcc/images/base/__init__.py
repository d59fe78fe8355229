"""What reading and building images need: limits, locks, the strict tar reader.

The tar reader rejects every entry that it does not understand. It may not import `oci` or
`assembly`.
"""
