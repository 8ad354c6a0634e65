"""Whether a trace is sound by itself."""
