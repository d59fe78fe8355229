"""What the schedulers of a farm share: SQLite for one scheduler, PostgreSQL for several.

Both pass the contract suite of `hpcc.ports.ControlStore`. It stores and reports changes, and
decides nothing about workers or tenants.
"""
