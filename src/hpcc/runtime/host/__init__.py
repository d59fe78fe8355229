"""What backends need from the host system: users, threads, tools, cleanup of dead workers."""
