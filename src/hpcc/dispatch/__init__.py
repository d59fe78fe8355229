"""The client side of farms: routes, uploads, execution, checked results.

It runs as a separate process with asyncio and gRPC, so that the daemon needs neither. Every byte
from a worker is checked against a digest and a signature before the daemon gets it.
"""
