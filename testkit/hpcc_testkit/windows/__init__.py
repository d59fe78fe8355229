"""Windows parts on Linux: Wine, a scripted containerd, stand-ins."""
