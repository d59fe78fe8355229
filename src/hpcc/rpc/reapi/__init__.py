"""REAPI v2: the client of a worker, the worker's server, another service's stores.

The server checks sizes and digests before the worker sees a call. It decides no right.
"""
