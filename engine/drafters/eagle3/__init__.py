"""The EAGLE-3 drafter: its head, its checkpoints, and how it grows trees."""
