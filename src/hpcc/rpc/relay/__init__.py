"""Calls that a gateway passes on to a worker."""
