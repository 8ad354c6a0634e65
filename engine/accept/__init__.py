"""Which drafted tokens are kept: greedy, sampled, by block, typical, and the logits processors before them."""
