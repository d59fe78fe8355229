"""Guests as jailed Firecracker microVMs."""
