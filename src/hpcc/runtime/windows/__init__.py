"""Guests on Windows: Hyper-V isolation and process isolation. Not yet run on Windows.

Each module names what only a real host can show; `selftest` checks that there.
"""
