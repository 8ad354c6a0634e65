"""Tensor parallelism: ranks that compute every layer together, what they compare, and rows dealt among them."""
