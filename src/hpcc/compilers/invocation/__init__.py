"""What one command line means for the cache: inputs, outputs, sharing, the form for a guest."""
