"""Signers and writers of trails that are killed, or have no disk, at a chosen step.

`failing` is run in place of the signer's program, `writer` in place of a worker.
"""
