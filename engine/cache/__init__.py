"""Keys and values: one buffer with branches, and the ways to commit an accepted path."""
