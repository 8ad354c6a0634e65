"""Traces on disk: read, written, indexed."""
