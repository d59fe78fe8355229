"""What one command line means for the cache: inputs, outputs, sharing, the form for a guest.

It reads argv with the flag table and gives an `Invocation`. It may not ask which files exist.
"""
