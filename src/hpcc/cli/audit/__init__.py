"""`hpcc audit`: rows, events, verification, reproduction."""
