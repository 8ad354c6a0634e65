"""The runs that the viewer was started with: which files, what is in them, whether they are sound."""
