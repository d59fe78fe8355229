"""REAPI v2: the client of a worker, the worker's server, stores in another REAPI service.

The server checks sizes and digests before the worker sees a call. The worker's `Authorizer`
decides about access.
"""
