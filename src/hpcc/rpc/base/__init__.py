"""Shared parts of services and clients: TLS channels, errors, and the handling of each call.

It does not depend on a service: it may not import `reapi`, `relay` or `scheduler`.
"""
