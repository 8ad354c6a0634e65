"""From settings to models that fit each other."""
