"""Keys and values: one buffer with branches, or a paged prefix, and the ways to commit an accepted path."""
