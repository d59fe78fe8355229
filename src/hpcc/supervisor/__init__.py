"""Keeps the services of `hpcc up` running, and ends all of them together."""
