"""The compile cache as a library: from a launcher's request to a hit, a miss or a bypass."""
