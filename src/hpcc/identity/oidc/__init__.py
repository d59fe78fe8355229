"""OpenID Connect: a tenant's identity provider, its keys, and whether a token is one of its tokens.

A provider may lie, hang or change its keys. Each answer is bounded, and what does not verify is an
error.
"""
