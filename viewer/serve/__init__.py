"""The server process and where it listens."""
