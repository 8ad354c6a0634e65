"""Tokens, places and rules in words."""
