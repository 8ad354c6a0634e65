"""The draft tree: its policy, how it grows, the tensors made of it, and the checks on them."""
