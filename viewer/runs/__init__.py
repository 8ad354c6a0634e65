"""The traces that can be looked at: which there are, and what is known of each."""
