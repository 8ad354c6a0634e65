"""A run, or a pair, as a static site: the boards of the viewer, its keys and its links, without a server."""
