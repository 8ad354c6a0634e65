"""Recorded runs, decoded again."""
