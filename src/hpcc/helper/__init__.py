"""The worker's helper: the only part of a worker under systemd that has rights of root.

It has one operation and reads 16 bytes for it; see ADR 69.
"""
