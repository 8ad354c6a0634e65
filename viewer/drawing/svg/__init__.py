"""Trees, masks, ribbons and strips."""
