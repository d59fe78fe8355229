"""Guests as containers of containerd and runc."""
