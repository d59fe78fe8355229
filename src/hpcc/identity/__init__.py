"""Proofs of who a peer is: providers' tokens, route tokens, signing keys, certificates.

Checks raise and never return a half-checked value. Secrets are read from private files only, and no
error text contains one.
"""
