"""Value types of the cache, and facts about files."""
