"""What all parts of a worker need: configuration, trust domains, identity, audit rows.

It may not import another room of the worker.
"""
