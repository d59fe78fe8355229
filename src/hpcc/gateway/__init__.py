"""One address for stock REAPI clients of a farm.

It asks the scheduler with the caller's own token, passes bytes on to the worker, and stores none of
them. It holds no right that its caller lacks.
"""
