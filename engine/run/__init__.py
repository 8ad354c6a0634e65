"""Whole runs: prompts in, turns out."""
