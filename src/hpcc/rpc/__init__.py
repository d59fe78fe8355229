"""gRPC clients and servers over pinned TLS.

Only this package, `runtime`, `warden` and `agent` use generated code. Each message is converted
to a value of `core` once, here, and gRPC's errors become errors of hpcc.
"""
