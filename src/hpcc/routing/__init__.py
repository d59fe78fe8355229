"""The scheduler's choice: which worker, among those that may. Pure: no clock, no I/O.

Randomness and time are passed in, so that tests can repeat every choice.
"""
