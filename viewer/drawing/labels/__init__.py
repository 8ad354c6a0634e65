"""What drawings say of nodes, numbers and manifests."""
