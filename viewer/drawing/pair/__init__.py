"""Two steps side by side."""
