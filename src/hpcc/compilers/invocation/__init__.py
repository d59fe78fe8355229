"""What one command line means for the cache: inputs, outputs, sharing, the form for a guest.

This room parses argv with the flag table into an `Invocation`. It may not check which files exist.
"""
