"""`hpcc audit`: rows, events, verification, reproduction, export.

Also the operator's commands for the audit trail at the schedulers. It reads trails and never
changes one.
"""
