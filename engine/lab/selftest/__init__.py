"""The selftest: every deliberate fault in a live run, what the verdict must say of it, and controls."""
