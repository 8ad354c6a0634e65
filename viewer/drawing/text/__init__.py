"""The text of a turn, each token by how it came about."""
