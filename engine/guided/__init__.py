"""Guided decoding: a grammar beside each turn, and what it allows at each slot of a tree."""
