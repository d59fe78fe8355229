"""What backends ask of the host system: users, threads, tools, leftovers of killed processes."""
