"""Why an action missed: which shared action is nearest, and where results differ.

Nothing here decides what serves a caller, and nothing here is needed for a compile.
"""
