"""Ranks: the processes of one run, how they are launched, watched and ended."""
