"""What things are called for people: tokens, turns and steps, acceptance rules."""
