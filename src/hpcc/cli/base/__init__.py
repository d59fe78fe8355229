"""Helpers that several command groups use."""
