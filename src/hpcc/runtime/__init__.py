"""Isolation backends: guests as microVMs or containers, and what they boot from.

Each backend is a room and implements `hpcc.ports.Runtime`. However a guest's block ends, nothing of
the guest is left on the host. A backend never claims an isolation label stronger than what ran.
"""
