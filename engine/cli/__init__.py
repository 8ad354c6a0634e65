"""The engine's commands. Torch is imported inside them, so that listing them stays light."""
