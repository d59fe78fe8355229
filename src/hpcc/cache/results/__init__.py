"""Stored results: checked, placed as outputs, recorded, shared between checkouts."""
