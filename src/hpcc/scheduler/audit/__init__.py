"""Workers' audit chains at the scheduler: anchors, records in PostgreSQL, security events.

An anchor never moves back. A chain that is shorter than its anchor is reported as cut off.
"""
