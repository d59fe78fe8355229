"""Warm guests: which are kept, who waits for one, which are retired."""
