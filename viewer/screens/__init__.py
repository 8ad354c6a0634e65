"""The pages, and what they share: one file each."""
