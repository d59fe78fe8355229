"""A tenant's stores, shared ones included, and what each may take."""
