"""Where a worker's audit trail goes besides its own disk."""
