"""The drafter that merges what a lookup finds into the trees of an EAGLE-3 head."""
