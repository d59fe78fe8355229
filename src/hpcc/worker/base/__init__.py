"""What all parts of a worker need: configuration, trust domains, identity, audit rows.

This room imports no other room of the worker.
"""
