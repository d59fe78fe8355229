"""Workers' audit chains at the scheduler: anchors, records in PostgreSQL, security events."""
