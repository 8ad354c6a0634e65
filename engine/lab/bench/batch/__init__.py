"""What speculation is worth by load, which is rows side by side and their context: without it, with it, dispatched."""
