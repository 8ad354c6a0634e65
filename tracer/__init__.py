"""The tracer: writes, reads, checks and diffs traces; the command line. Never imports torch."""
