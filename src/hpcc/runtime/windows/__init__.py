"""Guests on Windows: Hyper-V isolation and process isolation. Not yet run on Windows."""
