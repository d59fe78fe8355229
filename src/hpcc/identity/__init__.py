"""Proofs of who a peer is: providers' tokens, route tokens, signing keys, certificates.

Checks raise on failure and never return a half-checked value. Secrets are read only from private
files, and error texts contain no secret.
"""
