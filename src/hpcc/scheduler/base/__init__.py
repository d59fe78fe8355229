"""What all parts of a scheduler need: configuration, signing keys, tuning of the process.

This room imports no decision of the scheduler.
"""
