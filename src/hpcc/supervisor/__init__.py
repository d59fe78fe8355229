"""Keeps the services of `hpcc up` running, and ends all of them together.

It starts services as child processes, reads their JSON lines and restarts them by a pure policy.
It imports no service.
"""
