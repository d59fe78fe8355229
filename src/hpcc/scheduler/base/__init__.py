"""What all parts of a scheduler need: configuration, signing keys, tuning of the process.

It may not import a decision of the scheduler.
"""
