"""The drafter that runs the teacher's own first layers and an exit head."""
