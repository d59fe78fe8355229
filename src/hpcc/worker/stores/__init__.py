"""A tenant's stores, shared ones included, and the quotas of each tenant.

No path leads from one tenant's store to another's.
"""
