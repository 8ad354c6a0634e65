"""How fast decoding is in one setting and another, and what it costs, as ratios measured in one run."""
