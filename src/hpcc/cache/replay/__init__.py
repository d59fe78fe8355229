"""A request seen before: its plan, the native engine and the Python engine.

A replay answers from the exact bytes of a request, after every stat that the answer depended on was
compared. Both engines must give the same answers; one contract suite holds them to it. This is the
hottest path: no import of another room except `base`.
"""
