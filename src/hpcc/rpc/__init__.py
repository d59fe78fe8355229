"""The network: gRPC clients and servers over pinned TLS; the only home of generated types."""
