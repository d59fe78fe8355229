"""Isolation backends: guests as microVMs or containers, and what they boot from."""
