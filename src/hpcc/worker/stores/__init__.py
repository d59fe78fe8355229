"""A tenant's stores, shared ones included, and what each may take.

No path leads from one tenant's store to another's.
"""
