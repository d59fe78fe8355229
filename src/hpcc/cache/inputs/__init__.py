"""What a compile reads: include closure, tracked inputs, names that must stay absent."""
