"""What services and clients share: TLS channels, errors, one place for each call.

It knows no service: it may not import `reapi`, `relay` or `scheduler`.
"""
