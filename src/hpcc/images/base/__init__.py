"""What reading and building images rest on: limits, locks, the strict tar reader."""
