"""containerd's API, and what every container has in common."""
