"""What the agent does on every system: sessions, checked frames, blobs, standard streams."""
