"""Which drafted tokens are kept: greedy, sampled, typical, and the logits processors before them."""
