"""Proofs over a history: Merkle trees as in RFC 6962, and their heads as C2SP checkpoints.

Everything here is a function of bytes: no file, no clock, no key that is kept. Proofs and notes
come from anybody, so each is bounded and checked before it counts.
"""
