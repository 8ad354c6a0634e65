"""The adapters' commands."""
