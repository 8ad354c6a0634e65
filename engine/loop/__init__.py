"""The loop: sessions of rows, their turns, the phases of a step, and when a turn stops."""
