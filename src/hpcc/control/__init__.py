"""What the schedulers of a farm share: SQLite for one scheduler, PostgreSQL for several.

Both pass the contract suite of `hpcc.ports.ControlStore`. They store and report changes, and make
no decisions about workers or tenants.
"""
