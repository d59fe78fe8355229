"""The scheduler's choice of a worker among those that qualify. Pure: no clock, no I/O.

Randomness and time are passed in, so that tests can repeat every choice.
"""
