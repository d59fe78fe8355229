"""The network: gRPC clients and servers over pinned TLS.

With `runtime`, `warden` and `agent` it is the only user of generated code. Messages become values
of `core` here, once, and gRPC's errors become ours.
"""
