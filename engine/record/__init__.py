"""What the loop does, as a trace."""
